import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from compress.errors import UnstableError
from compress.plan import Choice
from compress.recurrent import guards
from compress.recurrent.guards import check_drift, check_long_sequences, drift, finite
from compress.recurrent.modes import Modes
from compress.recurrent.moments import moments_of
from compress.recurrent.opened import uses
from compress.recurrent.surgery import factorize
from tests.strategies import normal

STEPS = 1000


class Tagger(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(8, 2).double()

    def forward(self, x):
        return self.head(self.layer(x)[0])


def trained_like(kind, gain):
    """With states that have a memory: of larger weights a nudge lasts."""
    dense = kind(8, 8).double()
    with torch.no_grad():
        dense.weight_hh_l0.mul_(gain)
    return dense


def factorised(dense, ranks=(6, 2), gates=4):
    choices = {
        "weight_ih_l0": Choice("kcp", ranks, Modes((2, 4), (2 * gates, 4))),
        "weight_hh_l0": Choice("kcp", ranks, Modes((2, 4), (2 * gates, 4))),
    }
    layer, _ = factorize(dense, choices, moments_of(dense, [normal(1, 50, 8, 8)]))
    return layer


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
def test_a_thousand_steps_drift_no_further_than_those_of_the_dense_layer(kind, gates):
    torch.manual_seed(0)
    dense = trained_like(kind, 2.0)
    layer = factorised(dense, gates=gates)
    x, nudge = normal(2, STEPS, 2, 8), 1e-3 * normal(3, 2, 8)
    assert drift(layer, x, nudge).shape == (STEPS,)
    check_drift(dense, layer, x, nudge)


def test_a_layer_that_drifts_further_is_refused():
    torch.manual_seed(0)
    dense = trained_like(nn.LSTM, 1.0)
    wild = trained_like(nn.LSTM, 40.0)
    x, nudge = normal(2, 200, 2, 8), 1e-3 * normal(3, 2, 8)
    with pytest.raises(UnstableError, match=r"1\.5 times that is allowed"):
        check_drift(dense, wild, x, nudge)
    check_drift(wild, dense, x, nudge)


@pytest.mark.parametrize("x", [normal(2, 30, 2, 8), normal(2, 30, 8)], ids=["batch", "alone"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_network_is_refused_for_one_layer_that_drifts_after_the_end_of_its_data(batch_first, x):
    torch.manual_seed(0)
    dense = Tagger(trained_like(nn.LSTM, 1.0)).double()
    dense.layer.batch_first = batch_first
    steady = Tagger(factorize(dense.layer, {"weight_hh_l0": Choice("svd", (7,))})[0])
    wild = Tagger(factorised(trained_like(nn.LSTM, 40.0), (6, 3)))
    wild.layer.batch_first = batch_first
    used = uses(dense, x)
    check_long_sequences(dense, steady, used)
    check_long_sequences(dense, dense, used)
    with pytest.raises(UnstableError, match="that is allowed") as caught:
        check_long_sequences(dense, wild, used)
    assert caught.value.__notes__ == ["of layer"]


def test_a_layer_is_watched_for_a_thousand_steps(monkeypatch):
    steps = []
    monkeypatch.setattr(guards, "check_drift", lambda *args: steps.append(args[2]))
    dense = Tagger(nn.GRU(8, 8).double())
    x = normal(2, 30, 2, 8)
    check_long_sequences(dense, Tagger(factorised(dense.layer, gates=3)), uses(dense, x))
    assert steps[0].shape == (1000, 1, 8)
    torch.testing.assert_close(steps[0][30:60], x[:, :1])


class Echo(nn.Module):
    """At each step one, and so many times the first input."""

    batch_first = False

    def __init__(self, *shares):
        super().__init__()
        self.shares = torch.tensor(shares)[:, None, None]

    def forward(self, x):
        return 1 + self.shares * x[0], None


@pytest.mark.parametrize(
    ("dense", "other", "where"),
    [
        ((1.0, 1.0, 1.0), (1.0, 2.0, 1.0), "at its furthest"),
        ((3.0, 1.0, 1.0), (3.0, 1.0, 2.0), "after the last step"),
        ((1.0, 1.0, 1.0), (1.0, 1.0, torch.nan), "at its furthest"),
    ],
)
def test_it_says_where_outputs_drift_too_far(dense, other, where):
    x, nudge = torch.zeros(3, 2, 4), torch.full((2, 4), 1e-3)
    check_drift(Echo(*dense), Echo(*dense), x, nudge)
    with pytest.raises(UnstableError, match=where):
        check_drift(Echo(*dense), Echo(*other), x, nudge)


def test_drift_is_of_each_step_whatever_the_layout():
    dense = nn.GRU(3, 4).double()
    x, nudge = normal(0, 6, 2, 3), normal(1, 2, 3)
    with torch.no_grad():
        moved = x.clone()
        moved[0] += nudge
        outputs = dense(x)[0]
        expected = (dense(moved)[0] - outputs).flatten(1).norm(dim=1)
        expected /= outputs.flatten(1).norm(dim=1).max()
    torch.testing.assert_close(drift(dense, x, nudge), expected)
    dense.batch_first = True
    torch.testing.assert_close(drift(dense, x.transpose(0, 1), nudge), expected)


def test_nan_is_caught_where_it_begins():
    model = nn.Sequential(nn.Linear(8, 8), Tagger(factorised(nn.LSTM(8, 8).double()))).double()
    x = normal(0, 5, 2, 8)
    with finite(model):
        model(x)
    with torch.no_grad():
        model[1].layer.weight_hh_l0.in_1[0, 0, 0] = torch.nan
    with (
        finite(model),
        pytest.raises(UnstableError, match=r"^1\.layer puts out .*, first at step 0"),
    ):
        model(x)
    model(x)  # unwatched again


def test_the_step_is_named_of_packed_sequences_too():
    layer = nn.GRU(3, 4, batch_first=True)
    x = torch.zeros(2, 5, 3)
    x[0, 3] = torch.nan
    packed = pack_padded_sequence(x, torch.tensor([5, 2]), batch_first=True)
    for batch in (x, packed):
        with finite(layer), pytest.raises(UnstableError, match=r"the network .* first at step 3"):
            layer(batch)
    head = nn.Linear(3, 2)
    with finite(head), pytest.raises(UnstableError, match=r"values$"):
        head(x[0])
