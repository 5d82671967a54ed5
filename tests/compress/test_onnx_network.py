import copy
import getpass
import sys
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from compress.artifact import write_result
from compress.errors import ExportError
from compress.onnx import network
from compress.onnx.network import export_onnx
from compress.onnx.session import Session
from compress.plan import Choice, Plan
from compress.surgery import factorize_
from tests.search.subjects import SMALL_ARCHITECTURE, small

EXAMPLE = torch.full((1, 3, 8, 8), 0.123456789)
PLAN = Plan({"conv2": Choice("svd", (4,)), "conv3": Choice("spatial_svd", (5,))})


@pytest.fixture(scope="module")
def compressed():
    model = small()
    factorize_(model, PLAN)
    return model


@pytest.fixture(scope="module")
def exported(compressed, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    assert export_onnx(compressed, EXAMPLE, path) <= 1e-4
    return path


@pytest.fixture
def quick(exported, monkeypatch):
    """The exporter's graph as it came before, since it takes seconds."""
    monkeypatch.setattr(network, "exported", lambda *_: onnx.load(exported))


def test_the_file_computes_what_the_network_computes_for_any_batch(compressed, exported):
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    for batch in (1, 2, 7):
        x = torch.randn(batch, 3, 8, 8)
        (came,) = session.run(["output"], {"input": x.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(came), compressed(x))


def test_tokens_are_an_input_too(tmp_path):
    network = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(28, 3)).eval()
    tokens = torch.arange(14).reshape(2, 7) % 9
    assert export_onnx(network, tokens, tmp_path / "model.onnx") <= 1e-4
    came = Session(tmp_path / "model.onnx")(tokens[:1])
    torch.testing.assert_close(came, network(tokens[:1]).detach())


def test_folded_layers_are_exported_for_any_batch(tmp_path):
    network = small()
    factorize_(network, Plan({"conv2": Choice("kronecker", (2, 2, 1))}))
    assert export_onnx(network, EXAMPLE, tmp_path / "model.onnx") <= 1e-4


def test_nothing_of_this_machine_is_in_the_file(exported):
    contents = exported.read_bytes()
    words = {
        str(Path(__file__).resolve().parents[2]),
        str(exported.parent),
        str(Path.home()) + "/",
        sys.prefix,
        "site-packages",
        "compress/",
        "compress.",
        "torch.nn",
        ".py",
        f"/{getpass.getuser()}/",
    }
    assert b"conv2" in contents
    assert [word for word in words if word.encode() in contents] == []
    assert EXAMPLE[0, 0, 0, :2].numpy().tobytes() not in contents
    notes = [field for field in str(onnx.load(exported)).splitlines() if "metadata" in field]
    assert notes == []


def test_batch_norms_are_folded_equal_networks_give_equal_files_and_are_left_as_they_were(
    compressed, exported, tmp_path
):
    kinds = {node.op_type for node in onnx.load(exported).graph.node}
    assert "Conv" in kinds
    assert "BatchNormalization" not in kinds
    other = copy.deepcopy(compressed).train()
    other.conv1.eval()
    modes = [module.training for module in other.modules()]
    export_onnx(other, EXAMPLE, tmp_path / "other.onnx")
    assert (tmp_path / "other.onnx").read_bytes() == exported.read_bytes()
    assert [module.training for module in other.modules()] == modes


class OverTime(nn.Module):
    """(N, T, 4) -> (N, 2)."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.last(self.first(x).relu().mean(1))


def test_a_network_over_time_takes_any_length(tmp_path):
    model = OverTime().eval()
    export_onnx(model, torch.randn(1, 6, 4), tmp_path / "model.onnx")
    x = torch.randn(3, 11, 4)
    with torch.no_grad():
        torch.testing.assert_close(Session(tmp_path / "model.onnx")(x), model(x))


def test_a_length_that_the_network_fixes_stays_fixed(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(24, 2)).eval()
    assert export_onnx(model, torch.randn(1, 6, 4), tmp_path / "model.onnx") <= 1e-4


@pytest.mark.usefixtures("quick")
def test_the_real_inputs_count_as_the_random_ones_do(compressed, tmp_path, monkeypatch):
    monkeypatch.setattr(network, "parity", lambda *_: 1e-5)
    monkeypatch.setattr(network, "difference_of", lambda *_: 2e-4)
    with pytest.raises(ExportError, match=r"differs by 2\.0e-04, 0\.0001 is allowed") as caught:
        export_onnx(compressed, EXAMPLE, tmp_path / "model.onnx")
    assert caught.value.file == "model.onnx"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(network, "difference_of", lambda *_: 3e-5)
    assert export_onnx(compressed, EXAMPLE, tmp_path / "model.onnx") == 3e-5


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        print("printed inside")
        return self.layer(x) if x.sum() > 0 else x


def test_a_network_that_cannot_be_exported_is_an_error_and_the_exporter_keeps_quiet(
    tmp_path, capfd
):
    with pytest.raises(ExportError, match="ONNX export failed") as caught:
        export_onnx(Branching(), torch.zeros(1, 2), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert str(Path(__file__)) not in str(caught.value)


def test_without_onnx_the_result_says_what_to_install(compressed, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "compress.onnx.network", None)
    with pytest.raises(ExportError, match=r"pip install 'ranksearch\[onnx\]'") as caught:
        write_result(
            tmp_path,
            compressed,
            PLAN,
            architecture=SMALL_ARCHITECTURE,
            input_shape=(3, 8, 8),
            evidence={},
            example=EXAMPLE,
            programs=["model.onnx"],
        )
    assert caught.value.file == "model.onnx"
