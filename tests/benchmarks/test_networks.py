import torch

from benchmarks import networks
from benchmarks.metrics import metric_rows
from compress.methods.registry import METHODS
from tests.search.subjects import small


def trained():
    network = small().requires_grad_(False)
    layers = {
        report.name: report.shape
        for report in networks.inspect(network)
        if report.name in ("conv3", "classify")
    }
    images = torch.randn(80, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return networks.Trained("small", network, layers, images[:64], images[64:])


def test_a_network_without_weights_is_told_and_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(networks, "ROOT", tmp_path)
    assert list(networks.trained_networks(tmp_path)) == []
    assert capsys.readouterr().out.splitlines() == [
        f"{data} left out: no weights of {name}" for data, name in networks.NETWORKS.items()
    ]


def test_data_that_are_not_there_are_told_and_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(networks, "NETWORKS", {"mnist": "song_mnist"})
    assert list(networks.trained_networks(tmp_path)) == []
    assert "mnist left out: no MNIST in the data folder" in capsys.readouterr().out


def test_the_digits_network_comes_with_images_it_was_not_trained_on(tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "NETWORKS", {"digits": "digits_cnn"})
    (found,) = networks.trained_networks(tmp_path)
    assert list(found.layers) == ["conv1", "conv2", "conv3", "conv4", "classify"]
    assert not found.network.training
    assert (len(found.training), len(found.held_out)) == (900, 897)
    shape = found.layers["conv4"]
    svd = next(method for method in networks.usable_methods(shape) if method.name == "svd")
    rank = networks.ranks_for(svd, shape, 1 / 4)[0]
    assert rank % networks.STEP == 0
    full = shape.parameters / (1728 + 192)
    assert abs(rank - full / 4) <= networks.STEP / 2 + 1


def test_every_part_of_a_metric_has_a_row_for_each_layer_and_method(monkeypatch):
    quick = {name: METHODS[name] for name in ("svd", "tucker2")}
    monkeypatch.setattr(networks, "METHODS", quick)
    rows = metric_rows([trained()])
    kinds = [row["kind"] for row in rows]
    methods = sum(len(networks.usable_methods(shape)) for shape in trained().layers.values())
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "few samples": 3 * methods,
        "modes": methods,
        "sides": methods,
    }
    for row in rows:
        if row["kind"] == "modes":
            assert 0 < row["whole"] <= 1.1 * row["plain"]
        if row["kind"] == "sides":
            assert min(row["output"], row["loss"]) >= 0
