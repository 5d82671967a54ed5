import copy
import json
import sys

import pytest
import torch
from torch import nn

from compress.architectures import build
from compress.artifact import write_result
from compress.flow import Flow
from compress.load import load, main
from compress.plan import Choice, Plan
from compress.reference import Reference
from compress.repair import repair_
from compress.simplify import simplify_
from compress.surgery import factorize_, is_factorized

# Float64 round-off of a deep network, with room to spare.
EXACT = {"rtol": 1e-8, "atol": 1e-9}
X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def states(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(model, before):
    return model.state_dict().keys() == before.keys() and all(
        torch.equal(value, before[key]) for key, value in model.state_dict().items()
    )


def norms(model):
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


def simplified(model, x=X, **arguments):
    flow = Flow.of(model, x)
    return simplify_(model, flow, x, **arguments)


# Norms that stand before what they would have to go into stay: most of densenet's.
@pytest.mark.parametrize(
    ("name", "size", "left"),
    [
        ("digits_cnn", (2, 1, 8, 8), 0),
        ("resnet18", (1, 3, 32, 32), 0),
        ("mobilenet_v2", (1, 3, 32, 32), 0),
        ("densenet121", (1, 3, 32, 32), 62),
    ],
)
def test_known_networks_compute_the_same(name, size, left):
    model = build(name).double()
    x = torch.randn(size, dtype=torch.float64)
    with torch.no_grad():
        for norm in norms(model):
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 1.5)
        expected = model(x)
        found = simplified(model, x, fold_norms=True)
        assert found.reason is None
        assert found.changed
        assert len(norms(model)) == left
        torch.testing.assert_close(model(x), expected, **EXACT)


def test_the_flow_of_the_dense_network_serves_the_factorised_one(tiny):
    flow = Flow.of(tiny, X)
    factorize_(tiny, Plan({"conv2": Choice("svd", (4,)), "conv3": Choice("tucker2", (5, 4))}))
    expected = tiny(X)
    found = simplify_(tiny, flow, X, fold_norms=True)
    assert set(found.changed) == {"conv1", "norm1", "conv2", "norm2", "conv3", "norm3"}
    assert 0 < found.difference < 1e-5
    torch.testing.assert_close(tiny(X), expected, rtol=1e-4, atol=1e-5)


def test_norms_stay_unless_they_are_asked_for(tiny):
    before = states(tiny)
    assert simplified(tiny).changed == ()
    assert same(tiny, before)


def test_what_a_folded_norm_stood_between_is_multiplied_out():
    model = nn.Sequential(nn.Conv2d(3, 9, 1), nn.BatchNorm2d(9), nn.Conv2d(9, 2, 1)).eval()
    assert simplified(copy.deepcopy(model)).changed == ()
    assert simplified(model, fold_norms=True).changed == ("0", "1", "2")
    assert [len(list(layer.children())) for layer in model] == [1, 0, 0]
    assert sum(parameter.numel() for parameter in model.parameters()) == 3 * 2 + 2


def test_a_network_in_training_mode_keeps_its_norms(tiny):
    tiny.train()
    before = states(tiny)
    assert simplified(tiny, fold_norms=True).changed == ()
    assert same(tiny, before)
    assert tiny.training


def test_what_would_change_the_outputs_is_undone():
    """A flow that is not this network's: one norm would go into the layer of another."""
    norm, *convs = nn.BatchNorm2d(4), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 1, 1)
    model = nn.Sequential(convs[0], nn.ReLU(), norm, convs[1]).eval()
    norm.running_mean += 1
    before, modules = states(model), list(model.modules())
    found = simplify_(model, Flow({"0": "2", "2": "3"}, {"0": 4}), X, fold_norms=True)
    assert found.changed == ()
    assert found.reason.startswith("the outputs would differ by")
    assert same(model, before)
    assert list(model.modules()) == modules


def test_outputs_that_are_no_numbers_prove_nothing(tiny):
    tiny.classify.bias.data[0] = float("nan")
    before = states(tiny)
    assert simplified(tiny, fold_norms=True).reason.startswith("the outputs would differ by nan")
    assert [value.shape for value in states(tiny).values()] == [v.shape for v in before.values()]


def test_a_network_that_cannot_be_traced_is_left_with_the_reason():
    class Deciding(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.norm(self.conv(x))
            return y if y.mean() > 0 else -y

    model = Deciding().eval()
    before = states(model)
    assert "cannot be traced" in simplified(model, fold_norms=True).reason
    assert same(model, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_have_their_own_round_off(tiny, dtype):
    model = tiny.to(dtype)
    found = simplified(model, X.to(dtype), fold_norms=True)
    assert found.reason is None
    assert not norms(model)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


def test_the_result_is_written_loaded_and_trained_on(
    tiny, tiny_architecture, tmp_path, monkeypatch, capsys
):
    plan = Plan({"conv2": Choice("svd", (4,)), "classify": Choice("svd", (3,))})
    flow = Flow.of(tiny, X)
    reference = Reference.of(tiny, list(plan.choices), [X])
    factorize_(tiny, plan)
    repair_(tiny, plan, reference)
    simplify_(tiny, flow, X, fold_norms=True)
    arguments = {"architecture": tiny_architecture, "input_shape": (3, 8, 8), "evidence": {}}
    write_result(tmp_path, tiny, plan, **arguments, example=X)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert {name: [row[0] for row in rows] for name, rows in manifest["layers"].items()} == {
        "conv1": ["layer"],
        "norm1": [],
        "conv2": ["reduce", "expand"],
        "norm2": [],
        "norm3": [],  # conv3 has a bias as it is
        "classify": ["reduce", "expand"],
    }
    assert Plan.from_json(json.dumps(manifest["plan"])) == plan
    monkeypatch.setattr(sys, "argv", ["load.py", str(tmp_path)])
    main()
    assert "2 layers factorised" in capsys.readouterr().out
    loaded = load(tmp_path)
    assert torch.equal(loaded(X), tiny(X))
    assert loaded.state_dict().keys() == tiny.state_dict().keys()
    program = torch.export.load(tmp_path / "model.pt2").module()
    torch.testing.assert_close(program(X), tiny(X), rtol=1e-4, atol=1e-5)
    loaded.train()(X).square().mean().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def test_a_dense_network_is_written_with_an_empty_plan(tiny, tiny_architecture, tmp_path):
    simplified(tiny, fold_norms=True)
    arguments = {"architecture": tiny_architecture, "input_shape": (3, 8, 8), "evidence": {}}
    write_result(tmp_path, tiny, Plan(), **arguments, example=X, programs=())
    loaded = load(tmp_path)
    assert not norms(loaded)
    assert is_factorized(loaded.norm1)
    assert torch.equal(loaded(X), tiny(X))
