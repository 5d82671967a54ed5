import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from compress.equivalent import dense_weight, relative_error
from compress.methods.registry import METHODS
from compress.shape import ConvShape, LinearShape
from tests.strategies import (
    conv_shapes,
    inputs_of,
    kernels,
    normal,
    sampled_error,
    second_moment,
)

CONV = ConvShape(in_channels=5, out_channels=6, kernel_size=(3, 2))
RANKS = {
    "svd": (2,),
    "spatial_svd": (4,),
    "tucker2": (3, 2),
    "cp3": (7,),
    "cp4": (1,),
    "tensor_train": (2, 4, 3),
    "block_term": (3, 2, 3),
}


def through(stages, factors, x):
    """What the stages compute, without biases, by torch's own convolutions."""
    for stage in stages:
        shape = stage.shape
        if isinstance(shape, LinearShape):
            x = F.linear(x, factors[stage.name])
        else:
            x = F.conv2d(x, factors[stage.name], None, groups=shape.groups)
    return x


@pytest.mark.parametrize("name", RANKS)
def test_the_dense_weight_computes_what_the_stages_compute(name):
    stages = METHODS[name].stages(CONV, RANKS[name])
    factors = METHODS[name].decompose(CONV, normal(0, 6, 5, 3, 2), None).factors(RANKS[name])
    weight, x = dense_weight(CONV, stages, factors), normal(1, 2, 5, 7, 8)
    assert weight.shape == (6, 5, 3, 2)
    torch.testing.assert_close(F.conv2d(x, weight), through(stages, factors, x))


def test_the_dense_weight_of_two_linear_layers_is_their_product():
    shape = LinearShape(in_features=7, out_features=5)
    stages = METHODS["svd"].stages(shape, (3,))
    factors = METHODS["svd"].decompose(shape, normal(0, 5, 7), None).factors((3,))
    weight, x = dense_weight(shape, stages, factors), normal(1, 4, 7)
    torch.testing.assert_close(F.linear(x, weight), through(stages, factors, x))


def test_the_dense_weight_is_in_float64_whatever_the_factors():
    stages = METHODS["svd"].stages(CONV, (2,))
    factors = METHODS["svd"].decompose(CONV, normal(0, 6, 5, 3, 2).bfloat16(), None).factors((2,))
    assert factors["reduce"].dtype == torch.bfloat16
    assert dense_weight(CONV, stages, factors).dtype == torch.float64


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_the_relative_error_is_that_of_the_outputs_on_the_data(data):
    weight = data.draw(kernels())
    samples = data.draw(inputs_of(weight))
    approximation = weight + normal(0, *weight.shape)
    if (samples @ weight.flatten(1).T).any():
        error = relative_error(weight, approximation, second_moment(samples))
        assert error == pytest.approx(sampled_error(weight, approximation, samples))


def test_without_a_metric_all_inputs_count_alike():
    weight, approximation = normal(0, 4, 6), normal(1, 4, 6)
    expected = (weight - approximation).square().sum() / weight.square().sum()
    assert relative_error(weight, approximation, None) == pytest.approx(float(expected))


def test_a_layer_that_puts_out_nothing_has_no_error_unless_its_approximation_does():
    zeros, ones, metric = torch.zeros(3, 2), torch.ones(3, 2), torch.eye(2)
    assert relative_error(zeros, zeros, metric) == 0
    assert relative_error(zeros, ones, metric) == float("inf")
    assert relative_error(ones, zeros, torch.zeros(2, 2)) == 0


@settings(deadline=None, max_examples=10)
@given(shape=conv_shapes())
def test_the_layer_itself_is_its_own_equivalent(shape):
    size = (shape.out_channels, shape.in_channels, *shape.kernel_size)
    stages = METHODS["svd"].stages(shape, (1,))
    weight = dense_weight(shape, stages[:1], {"reduce": normal(0, 1, *size[1:])})
    assert torch.equal(weight, normal(0, 1, *size[1:]))
