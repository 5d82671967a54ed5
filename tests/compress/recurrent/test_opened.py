"""A network with open recurrent layers: each weight a linear layer that is called."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from compress.calibration import moments, trace
from compress.gradients import gradient_moments
from compress.recurrent.moments import moments_of
from compress.recurrent.opened import opened, uses
from compress.recurrent.weights import is_recurrent, joined, weights_of
from tests.compress.recurrent.networks import sequences

X = torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(1))


class Alone(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


def test_it_computes_the_same_with_the_same_values():
    model = sequences()
    network = opened(model)
    torch.testing.assert_close(network(X), model(X), rtol=0, atol=1e-6)
    assert network.lstm.weight_hh_l0.weight is model.lstm.weight_hh_l0
    assert network.conv.weight is model.conv.weight
    assert type(model.lstm) is nn.LSTM
    assert network.get_submodule("lstm.weight_hh_l0_reverse").out_features == 64


def test_a_network_without_recurrent_layers_stays_itself():
    model = nn.Sequential(nn.Linear(4, 4))
    assert opened(model) is model


def test_each_weight_is_traced_at_every_step():
    found = trace(opened(sequences()), X)
    assert {name: (t.calls, t.input_size) for name, t in found.items() if "lstm" in name} == {
        "lstm.weight_ih_l0": (1, (5, 1)),
        "lstm.weight_hh_l0": (5, (1, 1)),
        "lstm.weight_ih_l0_reverse": (1, (5, 1)),
        "lstm.weight_hh_l0_reverse": (5, (1, 1)),
    }


@pytest.mark.parametrize("layer", [nn.LSTM(8, 4, 2, proj_size=3), nn.GRU(8, 4), nn.RNN(8, 4)])
def test_the_moments_of_its_linear_layers_are_those_of_the_weights(layer):
    model = Alone(layer).eval()
    wanted = moments_of(layer, [X])
    found = moments(opened(model), [X], [f"layer.{name}" for name in wanted])
    for name, moment in wanted.items():
        torch.testing.assert_close(found[f"layer.{name}"].metric, moment, rtol=1e-5, atol=1e-6)


def test_gradients_come_back_through_time():
    """An input's gradient at the gates is what a change of the weight's bias would do to the loss:
    the sum over the steps of one sequence."""
    torch.manual_seed(0)
    layer = nn.LSTM(8, 4, batch_first=True)
    model = nn.Sequential(Alone(layer), nn.Flatten(), nn.Linear(4, 3))
    x, label = X[:1, :1], torch.tensor([1])
    found = gradient_moments(opened(model), [x], ["0.layer.weight_hh_l0"], labels=[label])
    nn.functional.cross_entropy(model(x), label).backward()
    slope = layer.bias_hh_l0.grad.double()
    torch.testing.assert_close(
        found["0.layer.weight_hh_l0"].second, torch.outer(slope, slope), rtol=1e-4, atol=1e-9
    )


def test_an_early_step_is_felt_in_a_late_answer():
    torch.manual_seed(0)
    model = nn.Sequential(Alone(nn.RNN(8, 4, batch_first=True)), nn.Flatten(0, 1), nn.Linear(4, 3))

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model(x)[-1:]

    found = gradient_moments(opened(Last()), [X[:1]], ["model.0.layer.weight_hh_l0"])
    one = found["model.0.layer.weight_hh_l0"]
    assert one.count == 5
    assert one.second.trace() > 0


def test_how_a_recurrent_layer_is_used_is_known():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(8, 8)

        def forward(self, x):
            packed = pack_sequence(list(x.unbind(0)), enforce_sorted=False)
            return self.gru(input=self.gru(packed)[0])[1]

    (use,) = uses(Twice(), X).values()
    assert (use.calls, use.inputs.shape) == (2, (5, 6, 8))
    assert uses(sequences(), X)["gru"].inputs.shape == (6, 5, 32)


def test_the_weights_of_a_network_have_names_and_shapes():
    shapes = {
        joined(module, weight): shape
        for module, layer in sequences().named_modules()
        if is_recurrent(layer)
        for weight, shape in weights_of(layer).items()
    }
    assert shapes["gru.weight_ih_l0"].type == "GRU weight"
    assert (shapes["gru.weight_ih_l0"].out_features, shapes["gru.weight_ih_l0"].in_features) == (
        36,
        32,
    )
    assert len(shapes) == 6
