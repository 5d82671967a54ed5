import pytest
import torch
from torch import nn

from compress.errors import PlanError, RankError, WeightsError
from compress.plan import Choice
from compress.recurrent.modes import Modes
from compress.recurrent.moments import moments_of
from compress.recurrent.surgery import factorize
from tests.strategies import normal

KINDS = [nn.LSTM, nn.GRU, nn.RNN]
GATES = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}


@pytest.mark.parametrize("kind", KINDS)
def test_full_ranks_compute_the_same(kind):
    dense = kind(6, 4, 2, bidirectional=True).double().eval()
    gates = GATES[kind] * 4
    choices = {
        "weight_ih_l0": Choice("svd", (min(6, gates),), Modes((6,), (gates,))),
        "weight_hh_l1_reverse": Choice("kronecker", (4,), Modes((2, 2), (gates // 2, 2))),
    }
    layer, errors = factorize(dense, choices)
    x = normal(0, 7, 3, 6)
    torch.testing.assert_close(layer(x), dense(x), rtol=0, atol=1e-9)
    assert max(errors.values()) < 1e-12
    assert errors.keys() == choices.keys()
    assert not layer.training


def test_the_data_make_the_outputs_better():
    torch.manual_seed(0)
    dense = nn.LSTM(16, 16, proj_size=8).double()
    mixing = normal(0, 16, 16) * torch.logspace(0.5, -2, 16, dtype=torch.float64)
    x = normal(1, 20, 8, 16) @ mixing
    choices = {
        "weight_ih_l0": Choice("kcp", (6, 4), Modes((4, 4), (8, 8))),
        "weight_hh_l0": Choice("kcp", (6, 4), Modes((2, 4), (8, 8))),
        "weight_hr_l0": Choice("svd", (6,), Modes((16,), (8,))),
    }
    apart = []
    for moments in (None, moments_of(dense, [x[:, :4]])):
        layer, _ = factorize(dense, choices, moments)
        apart.append(float((layer(x[:, 4:])[0] - dense(x[:, 4:])[0]).norm().detach()))
    assert apart[1] < 0.8 * apart[0], apart


def test_factors_of_a_frozen_weight_are_frozen():
    dense = nn.GRU(6, 4, 2)
    dense.weight_hh_l0.requires_grad_(False)
    names = ("weight_hh_l0", "weight_hh_l1")
    layer, _ = factorize(dense, {name: Choice("svd", (2,)) for name in names})
    wanted = [any(p.requires_grad for p in getattr(layer, name).parameters()) for name in names]
    assert wanted == [False, True]


def test_the_dense_layer_and_the_factorised_one_share_nothing():
    dense = nn.GRU(6, 4)
    dense.weight_ih_l0.requires_grad_(False)
    layer, _ = factorize(dense, {"weight_hh_l0": Choice("svd", (2,), Modes((4,), (12,)))})
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    assert layer.weight_ih_l0.requires_grad is False
    assert layer.bias_ih_l0.requires_grad
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


@pytest.mark.parametrize("name", ["weight_hh_l1", "bias_ih_l0", "lstm"])
def test_a_weight_that_is_none_is_refused(name):
    with pytest.raises(PlanError, match=f"no weights .'{name}'"):
        factorize(nn.LSTM(6, 4), {name: Choice("svd", (2,), Modes((4,), (16,)))})


def test_a_weight_that_is_not_finite_is_named():
    dense = nn.LSTM(6, 4, 2)
    with torch.no_grad():
        dense.bias_hh_l1[3] = torch.nan
    with pytest.raises(WeightsError, match="bias_hh_l1 holds NaN"):
        factorize(dense, {})


def test_the_weight_is_named_that_cannot_be_factorised_so():
    with pytest.raises(RankError) as caught:
        factorize(nn.LSTM(6, 4), {"weight_hh_l0": Choice("svd", (2,), Modes((6,), (16,)))})
    assert caught.value.__notes__ == ["of weight_hh_l0"]
