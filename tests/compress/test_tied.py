"""Layers under several names, and layers that share their weight: one before, one after."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from compress.artifact import write_result
from compress.calibration import moments
from compress.errors import PlanError
from compress.layers import find_obstacles, tied_layers
from compress.load import assign_, load
from compress.plan import Choice, Plan
from compress.reference import Reference
from compress.repair import repair_
from compress.shrinkage import shrunk
from compress.surgery import factorize_, is_factorized

RANK = Choice("svd", (3,))


class OneModule(nn.Module):
    """A block that stands under two names."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(6, 6, 3, padding=1))
        self.second = self.first
        self.last = nn.Linear(6, 6)

    def forward(self, x):
        return self.last(self.second(self.first(x).relu()).mean(2))


class OneWeight(nn.Module):
    """Two layers of one weight, each with its stride and its bias."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(6, 6, 3, padding=1)
        self.second = nn.Conv1d(6, 6, 3, stride=2)
        self.second.weight = self.first.weight
        self.last = nn.Linear(6, 6)

    def forward(self, x):
        return self.last(self.second(self.first(x).relu()).mean(2))


PLANS = {
    OneModule: Plan({"first.0": RANK, "last": RANK}),
    OneWeight: Plan({"second": RANK, "last": RANK, "first": RANK}),
}
NETWORKS = pytest.mark.parametrize("network", PLANS)
X = torch.randn(32, 6, 9, generator=torch.Generator().manual_seed(0))


def tied(model):
    """Whether the two factorised layers are one in all that they shared."""
    if isinstance(model, OneModule):
        return model.first[0] is model.second[0] and is_factorized(model.first[0])
    return all(
        model.first.get_parameter(f"{stage}.weight")
        is model.second.get_parameter(f"{stage}.weight")
        for stage in ("reduce", "expand")
    )


def result(folder, network, **changes):
    model = network().eval()
    factorize_(model, PLANS[network], moments(model, [X], list(PLANS[network].choices)))
    arguments = {"architecture": {"registry": "mine", "name": "net"}, "input_shape": X.shape[1:]}
    write_result(
        folder, model, PLANS[network], evidence={}, example=X[:1], programs=(), **arguments
    )
    return model


@NETWORKS
def test_what_was_tied_is_factorised_once_and_stays_tied(network):
    model = network()
    before = sum(p.numel() for p in model.parameters())
    assert before == 6 * 6 * 3 + (6 if network is OneModule else 12) + 42
    factorize_(model, PLANS[network])
    assert tied(model)
    factors = 3 * 6 * 3 + 6 * 3 + (6 if network is OneModule else 12)
    assert sum(p.numel() for p in model.parameters()) == factors + 3 * 6 + 6 * 3 + 6


class Reader(nn.Module):
    """Two layers of one weight, which a third module reads in its own way."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.table = nn.Embedding(6, 6)
        self.second.weight = self.table.weight = self.first.weight


def test_layers_whose_weight_is_read_elsewhere_are_not_tied_to_be_factorised():
    network = Reader()
    assert tied_layers(network) == {}
    assert "table" in find_obstacles(network)["first"]


def test_biases_that_differ_stay_apart_and_those_that_do_not_stay_one():
    model = OneWeight()
    factorize_(model, PLANS[OneWeight])
    assert model.first.expand.bias is not model.second.expand.bias
    assert model.second.reduce.stride == (2,)
    model = OneWeight()
    model.second.bias = model.first.bias
    factorize_(model, PLANS[OneWeight])
    assert model.first.expand.bias is model.second.expand.bias


def test_a_shared_weight_is_factorised_for_the_inputs_of_all_its_layers():
    model = OneWeight().eval()
    found = moments(model, [X], ["first", "second"])
    count = found["first"].count + found["second"].count
    metric = shrunk(sum(each.second * each.count for each in found.values()) / count, count)
    weight = model.first.weight.detach().double().flatten(1)
    kept = torch.linalg.eigh(weight @ metric @ weight.T).eigenvectors[:, -3:]
    factorize_(model, Plan({"first": RANK, "second": RANK}), found)
    product = model.second[1].weight.squeeze(2) @ model.second[0].weight.flatten(1)
    torch.testing.assert_close(product.double(), kept @ kept.T @ weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "plan",
    [
        Plan({"first": RANK}),
        Plan({"second": RANK}),
        Plan({"first": RANK, "second": Choice("svd", (2,))}),
    ],
)
def test_a_plan_for_a_part_of_a_shared_weight_is_refused(plan):
    model = OneWeight()
    layers = dict(model.named_modules())
    with pytest.raises(PlanError, match="first and second share their weight: a plan must name"):
        factorize_(model, plan)
    assert dict(model.named_modules()) == layers
    assert model.first.weight is model.second.weight


def test_a_layer_that_two_parents_hold_is_replaced_in_both():
    layer = nn.Linear(6, 6)
    model = nn.ModuleDict({"a": nn.Sequential(layer), "b": nn.Sequential(nn.ReLU(), layer)})
    factorize_(model, Plan({"a.0": RANK}))
    assert is_factorized(model["a"][0])
    assert model["b"][1] is model["a"][0]


def test_the_second_name_of_a_layer_is_not_for_plans():
    with pytest.raises(PlanError, match=r"no layer 'second\.0' of its own"):
        factorize_(OneModule(), Plan({"second.0": RANK}))


@NETWORKS
def test_a_result_is_loaded_as_tied_as_it_was(network, tmp_path):
    model = result(tmp_path, network)
    loaded = load(tmp_path, network)
    assert tied(loaded)
    assert torch.equal(loaded(X), model(X))
    assert len(list(loaded.parameters())) == len(list(model.parameters()))
    assert not any(parameter.is_meta for parameter in loaded.parameters())


@NETWORKS
def test_ties_outside_the_plan_stay_too(network, tmp_path):
    model = network().eval()
    expected = model(X)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    other = network().eval()
    assign_(other, state)
    assert torch.equal(other(X), expected)
    assert len(list(other.parameters())) == len(list(model.parameters()))


@NETWORKS
def test_values_that_differ_between_the_names_of_one_parameter_are_refused(network, tmp_path):
    result(tmp_path, network)
    state = load_file(tmp_path / "model.safetensors")
    key = next(key for key in state if key.startswith("second") and key.endswith("reduce.weight"))
    state[key] += 1
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=f"'{key}' and .* are one parameter; their values differ"):
        load(tmp_path, network)


@NETWORKS
def test_repair_keeps_the_tie_and_never_leads_farther_off(network):
    dense, plan = network().eval(), PLANS[network]
    model = copy.deepcopy(dense)
    factorize_(model, plan)
    report = repair_(model, plan, Reference.of(dense, list(plan.choices), [X]))
    assert tied(model)
    assert report.error_after <= report.error_before
    assert ("first" in report.refitted, "second" in report.refitted) == (False, False)
    assert "last" in report.refitted


def test_the_manifest_has_one_row_for_a_layer_of_two_names(tmp_path):
    result(tmp_path, OneModule)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["layers"].keys() == {"first.0", "last"}
