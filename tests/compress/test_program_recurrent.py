import pytest
import torch
from torch import nn

from compress.program.recurrent import GATES, check_shapes

ATEN = torch.ops.aten
CALLS = {
    "lstm": (ATEN.lstm.input, nn.LSTM(5, 3)),
    "lstm, two layers both ways": (ATEN.lstm.input, nn.LSTM(5, 3, 2, bidirectional=True)),
    "lstm, projected": (ATEN.lstm.input, nn.LSTM(5, 4, 2, proj_size=2, bidirectional=True)),
    "gru, batch first": (ATEN.gru.input, nn.GRU(5, 3, 2, batch_first=True)),
    "gru, no biases": (ATEN.gru.input, nn.GRU(5, 3, bias=False, bidirectional=True)),
    "tanh": (ATEN.rnn_tanh.input, nn.RNN(5, 3, 2)),
    "relu": (ATEN.rnn_relu.input, nn.RNN(5, 3, nonlinearity="relu")),
}
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")


def arguments(layer, batch=2, steps=6):
    """What torch calls the operator of a layer with."""
    shape = (batch, steps, 5) if layer.batch_first else (steps, batch, 5)
    count = layer.num_layers * (1 + layer.bidirectional)
    states = [torch.zeros(count, batch, layer.proj_size or layer.hidden_size)]
    if isinstance(layer, nn.LSTM):
        states.append(torch.zeros(count, batch, layer.hidden_size))
    settings = (layer.bias, layer.num_layers, 0.0, False, layer.bidirectional, layer.batch_first)
    weights = [weight.detach() for weight in layer._flat_weights]
    return torch.randn(shape), states, weights, settings


def call(operator, x, states, weights, settings):
    hx = states if operator is ATEN.lstm.input else states[0]
    return [x, hx, weights, *settings]


def test_each_operator_is_tried():
    assert {operator for operator, _ in CALLS.values()} == GATES.keys()


@pytest.mark.parametrize(("operator", "layer"), CALLS.values(), ids=CALLS)
def test_what_torch_itself_gives_is_taken(operator, layer):
    args = call(operator, *arguments(layer))
    check_shapes(operator, args, {})
    operator(*args)
    check_shapes(operator, args[:-1], {"batch_first": args[-1]})


def smaller(tensor, axis):
    return tensor.narrow(axis, 0, tensor.shape[axis] - 1)


@pytest.mark.parametrize(("operator", "layer"), CALLS.values(), ids=CALLS)
def test_any_tensor_of_another_shape_is_refused(operator, layer):
    x, states, weights, settings = arguments(layer)
    for tensors in (states, weights):
        for place, tensor in enumerate(tensors):
            for axis in range(tensor.ndim):
                tensors[place] = smaller(tensor, axis)
                with pytest.raises(ValueError, match="were wanted"):
                    check_shapes(operator, call(operator, x, states, weights, settings), {})
                tensors[place] = tensor
    for wrong in (weights[:-1], [*weights, weights[0]]):
        with pytest.raises(ValueError, match="were wanted"):
            check_shapes(operator, call(operator, x, states, wrong, settings), {})
    with pytest.raises(ValueError, match="were wanted"):
        check_shapes(operator, call(operator, smaller(x, 2), states, weights, settings), {})


def test_two_dtypes_are_refused():
    operator, layer = CALLS["lstm"]
    x, states, weights, settings = arguments(layer)
    with pytest.raises(ValueError, match=r"one dtype was wanted, .*float32.*float64"):
        check_shapes(operator, call(operator, x.double(), states, weights, settings), {})


def test_other_targets_are_none_of_it():
    check_shapes(("lstm",), [], {})
    check_shapes(ATEN.relu.default, [1], {})
