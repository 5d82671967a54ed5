"""Convolutions over one axis in space and over three, and transposed ones."""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from compress.equivalent import dense_weight
from compress.kernels import weight_of
from compress.methods.groups import group_shape
from compress.methods.registry import METHODS
from compress.shape import ConvShape, stage_macs, stage_parameters
from tests.compress.test_methods import (
    CONVOLUTIONAL,
    EXACT,
    built,
    dense_layer,
    full_rank_layer,
    inputs,
)
from tests.strategies import conv_shapes, ranks_of, transposed_shapes

EVERY = pytest.mark.parametrize("name", CONVOLUTIONAL)
# Most small kernels have nothing that spatial SVD or CP-4 could split.
MANY = settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.filter_too_much])

CONV1D = ConvShape(in_channels=64, out_channels=64, kernel_size=(5,))
CONV3D = ConvShape(in_channels=64, out_channels=64, kernel_size=(3, 3, 3))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@EVERY
@MANY
@given(shape=st.sampled_from([1, 3]).flatmap(lambda n: conv_shapes(4, axes=n, most_groups=2)))
def test_full_rank_computes_the_same_function(name, shape):
    assume(METHODS[name].obstacle(group_shape(shape)) is None)
    torch.manual_seed(0)
    layer, x = dense_layer(shape), inputs(shape)
    torch.testing.assert_close(full_rank_layer(name, shape, layer)(x), layer(x), **EXACT)


@EVERY
@MANY
@given(
    shape=st.integers(1, 3).flatmap(lambda n: transposed_shapes(4, axes=n, most_groups=2)),
    data=st.data(),
)
def test_transposed_ones_are_exact_at_full_rank_and_counted_at_any(name, shape, data):
    method = METHODS[name]
    assume(method.obstacle(group_shape(shape)) is None)
    torch.manual_seed(0)
    layer, x = dense_layer(shape), inputs(shape)
    torch.testing.assert_close(full_rank_layer(name, shape, layer)(x), layer(x), **EXACT)
    stages = method.stages(shape, data.draw(ranks_of(method, shape)))
    found = built(stages)
    assert stage_parameters(stages) == sum(p.numel() for p in found.parameters())
    with FlopCounterMode(display=False) as counter:
        found(x[:1].to("meta"))
    assert stage_macs(stages, tuple(x.shape[2:])) == counter.get_total_flops() // 2


@EVERY
@MANY
@given(
    shape=st.integers(1, 3).flatmap(lambda n: transposed_shapes(4, axes=n, most_groups=2)),
    data=st.data(),
)
def test_the_kernel_of_transposed_stages_is_that_of_what_they_compute(name, shape, data):
    method = METHODS[name]
    assume(method.obstacle(group_shape(shape)) is None)
    shape = replace(shape, bias=False)
    ranks = data.draw(ranks_of(method, shape))
    stages, layer, x = method.stages(shape, ranks), dense_layer(shape).double(), inputs(shape)
    factors = method.decompose(shape, layer.weight, None).factors(ranks)
    layer.weight.data = weight_of(shape, dense_weight(shape, stages, factors))
    torch.testing.assert_close(layer(x.double()), built(stages, factors)(x.double()))


@EVERY
@pytest.mark.parametrize("shape", [CONV1D, CONV3D], ids=str)
def test_a_method_pays_or_says_why_not(name, shape):
    of_one_axis = {"spatial_svd": "svd", "cp4": "cp3", "tensor_train": "tucker2"}
    refused = of_one_axis if shape is CONV1D else {}
    if name in refused:
        assert f"{refused[name]}" in METHODS[name].refusal(shape)
        assert METHODS[name].grid(shape) == []
    else:
        assert METHODS[name].refusal(shape) is None
        assert METHODS[name].grid(shape)


def test_a_kernel_of_one_place_is_left_to_svd():
    for axes, kernel in ((1, "a 1 kernel"), (3, "a 1x1x1 kernel")):
        point = ConvShape(in_channels=64, out_channels=64, kernel_size=(1,) * axes)
        assert METHODS["svd"].grid(point)
        assert kernel in METHODS["tucker2"].refusal(point)


def test_of_three_axes_the_first_is_split_from_the_others():
    first, second = METHODS["spatial_svd"].stages(replace(CONV3D, stride=(1, 2, 3)), (5,))
    assert (first.shape.kernel_size, second.shape.kernel_size) == ((3, 1, 1), (1, 3, 3))
    assert (first.shape.stride, second.shape.stride) == ((1, 1, 1), (1, 2, 3))
    assert METHODS["spatial_svd"].limits(CONV3D) == (3 * 64,)


def test_cp4_splits_every_axis():
    stages = METHODS["cp4"].stages(CONV3D, (7,))
    assert [stage.name for stage in stages] == [
        "reduce",
        "depth",
        "vertical",
        "horizontal",
        "expand",
    ]
    assert METHODS["cp4"].limits(CONV3D) == (27 * 64,)


@pytest.mark.parametrize(
    "sizes", [{"stride": (1, 1)}, {"padding": (1, 1, 1)}, {"dilation": (1, 1)}], ids=str
)
def test_sizes_of_other_axes_are_refused(sizes):
    (field,) = sizes
    axes = 1 if len(sizes[field]) == 2 else 2
    with pytest.raises(ValueError, match=rf"{field} .* came; {axes} sizes were wanted"):
        ConvShape(in_channels=1, out_channels=1, kernel_size=(3,) * axes, **sizes)
