"""Layers whose weight is computed, and layers that are frozen."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from compress.artifact import write_result
from compress.calibration import moments
from compress.errors import UnsupportedLayerError
from compress.load import load
from compress.plan import Choice, Plan
from compress.reference import Reference
from compress.repair import repair_
from compress.surgery import factorize_, is_factorized

WAYS = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
}
FULL = Plan({"0": Choice("svd", (6,))})
HALF = Plan({"0": Choice("svd", (3,))})
X = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=WAYS)
def way(request):
    return WAYS[request.param]


def network(way):
    """Two computed weights; plans name the first."""
    return nn.Sequential(way(nn.Linear(6, 6)), way(nn.Linear(6, 6))).eval()


def test_a_computed_weight_is_folded_on_request(way):
    model = network(way)
    expected = model(X)
    factorize_(model, FULL, moments(model, [X], ["0"]), fold=True)
    torch.testing.assert_close(model(X), expected, rtol=1e-4, atol=1e-5)
    assert [type(stage) for stage in model[0]] == [nn.Linear, nn.Linear]
    assert hasattr(model[1], "parametrizations")


def test_it_is_refused_without_and_left_alone(way):
    model = network(way).train()
    before = copy.deepcopy(model.state_dict())
    for plan, fold in ((FULL, False), (Plan({"0": Choice("svd", (7,))}), True)):
        with pytest.raises((UnsupportedLayerError, ValueError)):
            factorize_(model, plan, fold=fold)
        assert not is_factorized(model[0])
        assert before.keys() == model.state_dict().keys()
        assert all(torch.equal(value, before[k]) for k, value in model.state_dict().items())


def test_the_value_in_eval_mode_counts_even_in_training():
    model = network(parametrizations.spectral_norm)
    expected = model(X)
    factorize_(model.train(), FULL, fold=True)
    assert model[0].training
    torch.testing.assert_close(model.eval()(X), expected, rtol=1e-4, atol=1e-5)


def test_it_is_repaired_and_loaded(way, tmp_path):
    dense, plan = network(way), HALF
    model = copy.deepcopy(dense)
    factorize_(model, plan, fold=True)
    with torch.no_grad():
        model[0][-1].weight.mul_(0.7)
    report = repair_(model, plan, Reference.of(dense, ["0"], [X]))
    assert report.refitted == ("0",)
    write_result(
        tmp_path,
        model,
        plan,
        architecture={"registry": "mine", "name": "net"},
        input_shape=(6,),
        evidence={},
        example=X,
        programs=(),
    )
    assert torch.equal(load(tmp_path, lambda: network(way))(X), model(X))


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_what_was_frozen_stays_frozen(fold, frozen):
    layer = nn.Linear(6, 6)
    model = nn.Sequential(parametrizations.weight_norm(layer) if fold else layer)
    model.requires_grad_(not frozen)
    with torch.no_grad():
        factorize_(model, HALF, fold=fold)
    assert {parameter.requires_grad for parameter in model.parameters()} == {not frozen}
