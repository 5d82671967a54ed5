"""Weights of recurrent layers in a plan, and in a network that it is applied to."""

import json

import pytest
import torch
from torch import nn

from compress.calibration import moments
from compress.errors import PlanError, RankError, UnsupportedLayerError, WeightsError
from compress.plan import Choice, Plan
from compress.recurrent.layer import Recurrent
from compress.recurrent.modes import Modes
from compress.recurrent.opened import opened
from compress.surgery import factorize_
from tests.compress.recurrent.networks import sequences
from tests.compress.recurrent.plans import MODES, PLAN


def test_a_plan_with_modes_comes_back_from_its_json():
    text = PLAN.to_json()
    assert Plan.from_json(text) == PLAN
    layers = json.loads(text)["layers"]
    assert layers["lstm.weight_hh_l0_reverse"]["modes"] == {"inputs": [4, 4], "outputs": [8, 8]}
    assert "modes" not in layers["lstm.weight_hh_l0"]


@pytest.mark.parametrize(
    ("modes", "said"),
    [
        ([4, 4], "sizes of inputs and outputs"),
        ({"inputs": [4, 4]}, "sizes of inputs and outputs"),
        ({"inputs": [4, 4], "outputs": [8]}, "2 modes of the inputs and 1 of the outputs"),
        ({"inputs": [4, "4"], "outputs": [8, 8]}, "integers above zero"),
    ],
)
def test_modes_that_are_none_are_refused_with_the_name(modes, said):
    entry = {"method": "kcp", "ranks": [2, 4], "modes": modes}
    with pytest.raises(PlanError, match=f"'lstm.weight_hh_l0'.*{said}"):
        Plan.from_json(json.dumps({"version": 1, "layers": {"lstm.weight_hh_l0": entry}}))


def test_all_weights_of_a_layer_are_replaced_at_once():
    model = sequences()
    bias = model.lstm.bias_hh_l0.clone()
    factorize_(model, PLAN)
    assert isinstance(model.lstm, Recurrent)
    held = {name for name, _ in model.lstm.named_children()}
    assert held == {"weight_ih_l0", "weight_hh_l0", "weight_hh_l0_reverse"}
    assert model.gru.weight_hh_l0.inputs == ("n1", "n2")  # of the default modes
    assert torch.equal(model.lstm.bias_hh_l0, bias)
    assert not model.lstm.training
    assert model(torch.randn(2, 5, 8)).shape == (2, 3)


def test_full_ranks_compute_the_same():
    model, x = sequences().double(), torch.randn(3, 7, 8, dtype=torch.float64)
    before = model(x)
    factorize_(
        model,
        Plan(
            {
                "lstm.weight_hh_l0": Choice("svd", (16,)),
                "gru.weight_ih_l0": Choice("kronecker", (24,)),
            }
        ),
    )
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-9)


def test_the_data_of_a_weight_bring_its_outputs_nearer():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(8, 8, generator=generator) * torch.logspace(0.5, -2, 8)
    batches = [torch.randn(64, 9, 8, generator=generator) @ mixing]
    plan = Plan({"gru.weight_ih_l0": Choice("svd", (3,))})
    apart = []
    for known in (None, moments(opened(sequences()), batches, ["gru.weight_ih_l0"])):
        model = sequences()
        factorize_(model, plan, known)
        apart.append(float((model(batches[0]) - sequences()(batches[0])).norm().detach()))
    assert apart[1] < 0.6 * apart[0], apart


@pytest.mark.parametrize(
    ("plan", "kind", "said"),
    [
        ({"lstm": Choice("svd", (2,))}, UnsupportedLayerError, "name its weights"),
        ({"lstm.weight_ih_l1": Choice("svd", (2,))}, PlanError, "no weights .'weight_ih_l1'"),
        ({"lstm.weight_ih_l0": Choice("cp3", (2,))}, UnsupportedLayerError, "no layout"),
        ({"lstm.weight_ih_l0": Choice("svd", (9,))}, RankError, "9"),
        ({"lstm.weight_ih_l0": Choice("kcp", (2, 2), MODES)}, RankError, "for one of"),
        ({"conv": Choice("kcp", (2, 2))}, PlanError, "kcp"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_network_is_as_it_was(plan, kind, said):
    model = sequences()
    with pytest.raises(kind, match=said) as caught:
        factorize_(model, Plan(plan))
    (name,) = plan
    assert any(name.partition(".")[0] in note for note in caught.value.__notes__)
    assert type(model.lstm) is nn.LSTM


def test_a_weight_that_is_not_finite_is_named():
    model = sequences()
    with torch.no_grad():
        model.lstm.bias_ih_l0[1] = torch.inf
    with pytest.raises(WeightsError, match="bias_ih_l0 holds NaN") as caught:
        factorize_(model, PLAN)
    assert "in layer 'lstm'" in caught.value.__notes__


def test_shared_weights_of_two_layers_are_refused():
    model = sequences()
    model.other = nn.LSTM(8, 16, bidirectional=True)
    model.other.weight_hh_l0 = model.lstm.weight_hh_l0
    with pytest.raises(UnsupportedLayerError, match="also those of other"):
        factorize_(model, PLAN)


def test_a_layer_under_two_names_is_replaced_under_both():
    model = sequences()
    model.twin = model.lstm
    factorize_(model, Plan({"lstm.weight_hh_l0": Choice("kcp", (2, 2), Modes((2, 8), (2, 32)))}))
    assert model.twin is model.lstm
    assert isinstance(model.lstm, Recurrent)
