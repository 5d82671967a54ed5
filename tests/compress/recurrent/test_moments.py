import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from compress.errors import CompressError
from compress.recurrent.moments import moments_of
from compress.shrinkage import shrunk
from tests.strategies import normal

EXACT = {"rtol": 0, "atol": 1e-10}


def by_steps(cell, x, h, c):
    """Every x_t and every h_(t-1) of an LSTM cell over (T, N, I)."""
    states = []
    for each in x:
        states.append(h)
        h, c = cell(each, (h, c))
    return torch.cat([*x]), torch.cat(states)


def moment(rows):
    return shrunk(rows.T @ rows / len(rows), len(rows))


def test_inputs_and_states_of_every_step():
    layer = nn.LSTM(3, 4, batch_first=True).double()
    cell = nn.LSTMCell(3, 4).double()
    cell.load_state_dict({name[:-3]: value for name, value in layer.state_dict().items()})
    batches = [normal(i, 2, 5, 3) for i in range(3)]
    first = normal(9, 1, 2, 4), normal(10, 1, 2, 4)
    found = moments_of(layer, [(batch, first) for batch in batches])
    with torch.no_grad():
        seen = [
            by_steps(cell, batch.transpose(0, 1), first[0][0], first[1][0]) for batch in batches
        ]
    inputs, states = (torch.cat(part) for part in zip(*seen, strict=True))
    torch.testing.assert_close(found["weight_ih_l0"], moment(inputs), **EXACT)
    torch.testing.assert_close(found["weight_hh_l0"], moment(states), **EXACT)


def test_layers_ways_and_packed_sequences():
    layer = nn.GRU(3, 4, num_layers=2, bidirectional=True).double()
    x, lengths = normal(0, 5, 3, 3), [5, 2, 4]
    packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    found = moments_of(layer, [packed])
    alone = [x[:length, i : i + 1] for i, length in enumerate(lengths)]
    rows = torch.cat([part.flatten(0, 1) for part in alone])
    torch.testing.assert_close(found["weight_ih_l0_reverse"], moment(rows), **EXACT)
    single = nn.GRU(3, 4, bidirectional=True).double()
    single.load_state_dict({k: v for k, v in layer.state_dict().items() if "l0" in k})
    with torch.no_grad():
        outputs = [single(part)[0][:, 0] for part in alone]
    zero = torch.zeros(1, 4, dtype=torch.float64)
    before = torch.cat([torch.cat([zero, each[:-1, :4]]) for each in outputs])
    behind = torch.cat([torch.cat([each[1:, 4:], zero]) for each in outputs])
    torch.testing.assert_close(found["weight_ih_l1"], moment(torch.cat(outputs)), **EXACT)
    torch.testing.assert_close(found["weight_hh_l0"], moment(before), **EXACT)
    torch.testing.assert_close(found["weight_hh_l0_reverse"], moment(behind), **EXACT)


def test_dropout_is_off_and_the_layer_stays_as_it_is():
    layer = nn.LSTM(3, 4, num_layers=2, dropout=0.9, proj_size=2).double()
    x = normal(0, 5, 2, 3)
    found = moments_of(layer, [x])
    assert layer.training
    again = moments_of(layer, [x])
    assert all(torch.equal(found[name], again[name]) for name in found)
    assert found["weight_hh_l1"].shape == (2, 2)


def test_nothing_and_nan_are_refused():
    layer = nn.GRU(3, 4)
    with pytest.raises(CompressError, match="no batch came"):
        moments_of(layer, [])
    with pytest.raises(CompressError, match="weight_ih_l0 is multiplied by holds NaN"):
        moments_of(layer, [torch.full((2, 1, 3), torch.nan)])
