import copy
from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from onnx import TensorProto
from torch import nn

from compress.errors import UnsupportedLayerError
from compress.layers import shape_of
from compress.load import FactorizedLayer
from compress.methods.registry import METHODS
from compress.onnx.graph import Graph
from compress.onnx.layers import is_writable, layer_model, write
from compress.onnx.session import Session
from compress.plan import Choice
from compress.surgery import factorized
from tests.strategies import any_conv_shapes

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even:UserWarning")

# Float32 round-off of up to four convolutions, outputs of order 1 to 10.
EXACT = {"rtol": 1e-4, "atol": 1e-4}
SIZE = (11, 12, 10)  # of an input in space

LAYERS = {
    "1d": nn.Conv1d(16, 16, 5, padding="same"),
    "2d": nn.Conv2d(16, 24, 3, stride=(2, 1), padding=(2, 1), padding_mode="reflect"),
    "2d grouped": nn.Conv2d(16, 16, 3, groups=2, bias=False),
    "2d depthwise": nn.Conv2d(16, 16, (3, 5), groups=16, padding="same", padding_mode="circular"),
    "3d": nn.Conv3d(16, 16, 3, dilation=(1, 2, 1)),
    "2d transposed": nn.ConvTranspose2d(16, 16, 4, stride=2, padding=1, output_padding=1),
    "2d transposed grouped": nn.ConvTranspose2d(16, 16, 3, groups=4, dilation=2),
    "linear": nn.Linear(32, 24),
}
EVERY = [
    (kind, method)
    for kind, layer in LAYERS.items()
    for method in METHODS
    if METHODS[method].refusal(shape_of(layer)) is None
]


def check(layer, x):
    """The layer's graph, made from two inputs, computes what the layer does for `x`."""
    with torch.no_grad():
        torch.testing.assert_close(Session(layer_model(layer, x[:2]))(x), layer(x), **EXACT)


@settings(max_examples=100, deadline=None)
@given(shape=any_conv_shapes())
def test_a_convolution_of_any_geometry_is_written_exactly(shape):
    layer = getattr(nn, shape.type)(**asdict(shape))
    check(layer, torch.randn(3, shape.in_channels, *SIZE[: shape.axes]))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 3, (2, 4), padding="same"),
        nn.Conv2d(2, 3, (4, 3), padding="same", padding_mode="reflect"),
        nn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode="reflect"),
        nn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode="replicate"),
        nn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode="circular"),
        nn.Conv2d(2, 3, 3, padding="valid", padding_mode="circular"),
        nn.ConvTranspose2d(2, 3, 3, stride=(2, 3), padding=1, output_padding=(1, 2)),
        nn.ConvTranspose2d(2, 3, 3, stride=(1, 2), dilation=(2, 3), output_padding=(1, 2)),
    ],
    ids=str,
)
def test_margins_are_where_torch_has_them(layer):
    check(layer, torch.randn(3, 2, 7, 8))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("axes", [2, 3, 4])
def test_a_linear_layer_takes_inputs_of_any_number_of_axes(bias, axes):
    check(nn.Linear(6, 5, bias=bias), torch.randn(*(3, 2, 4, 6)[4 - axes :]))


@pytest.mark.parametrize(("kind", "method"), EVERY)
def test_every_method_s_stages_are_written(kind, method):
    dense = LAYERS[kind]
    shape = shape_of(dense)
    layer = factorized(dense, Choice(method, METHODS[method].grid(shape)[0]))
    channels = (32,) if kind == "linear" else (16, *SIZE[: shape.axes])
    assert is_writable(layer)
    check(layer, torch.randn(3, *channels))


def test_the_batch_is_free_and_bears_its_name():
    model = layer_model(nn.Conv2d(2, 3, 3), torch.zeros(4, 2, 5, 5))
    for value, sizes in ((model.graph.input[0], [2, 5, 5]), (model.graph.output[0], [3, 3, 3])):
        batch, *others = value.type.tensor_type.shape.dim
        assert batch.dim_param == "batch"
        assert [size.dim_value for size in others] == sizes


def test_two_calls_of_a_layer_share_its_weights():
    graph, layer = Graph(), nn.Linear(4, 4)
    first = write(graph, layer, "same", "input")
    second = write(graph, layer, "same", first)
    assert first != second
    assert set(graph.weights) == {"same.weight.T", "same.bias"}
    assert len(graph.nodes) == 4
    assert len({node.output[0] for node in graph.nodes}) == 4


def test_the_layer_is_left_as_it_was():
    layer = nn.Conv2d(2, 3, 3).train()
    state = copy.deepcopy(layer.state_dict())
    layer_model(layer, torch.zeros(1, 2, 5, 5))
    assert layer.training
    assert layer.weight.requires_grad
    assert all(torch.equal(value, state[key]) for key, value in layer.state_dict().items())


def test_weights_keep_their_precision():
    model = layer_model(nn.Linear(3, 3).half(), torch.zeros(1, 3).half())
    assert {weight.data_type for weight in model.graph.initializer} == {TensorProto.FLOAT16}


def test_a_stage_that_cannot_be_written_is_refused_with_what_to_do():
    layer = FactorizedLayer()
    layer.first, layer.second = nn.Linear(3, 3), nn.Hardshrink()
    assert not is_writable(layer)
    with pytest.raises(
        UnsupportedLayerError, match=r"'layer\.second' is a Hardshrink.*onnx/layers"
    ):
        layer_model(layer, torch.zeros(1, 3))


def test_a_row_of_no_stages_is_the_identity():
    check(FactorizedLayer(), torch.randn(3, 4))
