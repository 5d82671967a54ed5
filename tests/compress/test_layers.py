import re
from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

from compress.architectures import build
from compress.catalog import METHODS
from compress.errors import UnsupportedLayerError
from compress.layers import find_obstacles, inspect, shape_of, tied_layers
from compress.load import build_layer
from compress.shape import LinearShape
from tests.strategies import any_conv_shapes

# torch tells about its own copy of the input, once a process.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even:UserWarning")


@given(shape=any_conv_shapes())
def test_a_shape_builds_the_layer_that_has_it(shape):
    layer, size = getattr(nn, shape.type)(**asdict(shape)), (9, 11, 8)[: shape.axes]
    assert shape_of(layer) == shape
    assert shape.parameters == sum(parameter.numel() for parameter in layer.parameters())
    output = layer(torch.zeros(1, shape.in_channels, *size))
    assert shape.output_size(size) == output.shape[2:]


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_has_a_shape(bias):
    shape = LinearShape(in_features=3, out_features=2, bias=bias)
    assert shape_of(nn.Linear(3, 2, bias=bias)) == shape


def test_what_is_no_plain_layer_has_no_shape():
    with pytest.raises(
        UnsupportedLayerError, match="ReLU, a plain convolution or Linear was wanted"
    ):
        shape_of(nn.ReLU())


@pytest.mark.parametrize("name", ["resnet18", "vit_b_32", "convnext_tiny", "swin_t", "digits_cnn"])
def test_every_parameter_of_a_network_stands_in_one_row(name):
    with torch.device("meta"):
        model = build(name)
    rows = [report.name for report in inspect(model)]
    owners = {key.rpartition(".")[0] for key, _ in model.named_parameters()}
    assert len(rows) == len(set(rows))
    assert set(rows) == owners


def test_a_layer_is_open_to_the_methods_that_do_not_refuse_it(tiny):
    reports = {report.name: report for report in inspect(tiny)}
    conv, norm = reports["conv3"], reports["norm3"]
    assert conv.shape == shape_of(tiny.conv3)
    assert conv.reason is None
    assert set(conv.refusals) < set(METHODS)
    assert all(conv.refusals.values())
    assert norm.shape is None
    assert "BatchNorm2d: only convolutions, Linear and recurrent layers" in norm.reason


def test_a_layer_that_every_method_refuses_says_why():
    report = inspect(nn.Sequential(nn.Linear(1, 1)))[0]
    assert set(report.refusals) == set(METHODS)
    assert all(f"{method}: {report.refusals[method]}" in report.reason for method in METHODS)


class MyConv(nn.Conv2d):
    pass


class MyLSTM(nn.LSTM):
    pass


FACTORIZED = build_layer(
    [
        ["reduce", "Linear", {"in_features": 4, "out_features": 2, "bias": False}],
        ["expand", "Linear", {"in_features": 2, "out_features": 4}],
    ]
)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (MyLSTM(4, 4), "MyLSTM, a subclass of LSTM"),
        (nn.Embedding(4, 4), "Embedding: it looks rows up"),
        (MyConv(4, 4, 3), "MyConv, a subclass of Conv2d"),
        (parametrizations.weight_norm(nn.Linear(4, 4)), "computed by a parametrisation"),
        (parametrizations.orthogonal(nn.Conv2d(4, 4, 1)), "computed by a parametrisation"),
        (nn.Linear(4, 4, dtype=torch.complex64), "torch.complex64, real floating point"),
        (FACTORIZED, "factorised already"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_layer_that_no_method_may_touch_says_why(layer, reason):
    model = nn.Sequential(nn.Linear(4, 4), layer)
    assert list(find_obstacles(model)) == ["1"]
    reports = {report.name: report for report in inspect(model)}
    assert list(reports) == ["0", "1"]
    assert re.search(reason, reports["1"].reason)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_a_weight_norm_of_the_old_kind_is_an_obstacle():
    assert "computed from other parameters" in find_obstacles(weight_norm(nn.Linear(4, 4)))[""]


def test_attention_reads_the_weight_of_its_last_layer_itself():
    obstacles = find_obstacles(nn.MultiheadAttention(8, 2))
    assert "subclass of Linear" in obstacles["out_proj"]
    assert "MultiheadAttention" in obstacles[""]


def test_layers_that_share_a_bias_alone_name_each_other():
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4), "c": nn.Linear(4, 4)})
    model["b"].bias = model["a"].bias
    obstacles = find_obstacles(model)
    assert obstacles.keys() == {"a", "b"}
    assert obstacles["a"].endswith("those of b")
    assert obstacles["b"].endswith("those of a")


def test_layers_that_share_their_weight_are_tied():
    model = nn.ModuleDict({"a": nn.Linear(40, 40), "b": nn.Linear(40, 40), "c": nn.Linear(40, 40)})
    model["b"].weight = model["a"].weight
    assert find_obstacles(model) == {}
    assert tied_layers(model) == {"a": ("a", "b"), "b": ("a", "b")}
    reasons = {report.name: report.reason for report in inspect(model)}
    assert "also that of b: a plan must name all" in reasons["a"]
    assert "also that of a: a plan must name all" in reasons["b"]
    assert reasons["c"] is None


def test_a_weight_that_something_else_holds_is_an_obstacle():
    tied = nn.ModuleDict({"embed": nn.Embedding(6, 4), "head": nn.Linear(4, 6)})
    tied["embed"].weight = tied["head"].weight
    assert tied_layers(tied) == {}
    assert find_obstacles(tied)["head"] == "its parameters are also those of embed"
    tied["hidden"] = nn.Linear(4, 6)
    tied["hidden"].weight = tied["head"].weight
    assert tied_layers(tied) == {}
    assert find_obstacles(tied)["head"] == "its parameters are also those of embed, hidden"
    split = nn.ModuleDict({"a": nn.Conv1d(2, 4, 3), "b": nn.Conv1d(4, 4, 3, groups=2)})
    split["b"].weight = split["a"].weight
    assert find_obstacles(split).keys() == {"a", "b"}


def test_a_layer_under_two_names_is_one_layer():
    block = nn.Sequential(nn.Linear(40, 40))
    model = nn.ModuleDict({"a": block, "b": block})
    assert find_obstacles(model) == tied_layers(model) == {}
    assert [(report.name, report.reason) for report in inspect(model)] == [("a.0", None)]


def test_a_computed_weight_is_no_obstacle_where_it_is_folded():
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4))
    assert "fold=True" in find_obstacles(model)["0"]
    assert find_obstacles(model, fold=True) == {}
