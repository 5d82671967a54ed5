"""Grouped convolutions: each group is factorised as the convolution that it is."""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from compress.equivalent import dense_weight, relative_error
from compress.errors import CompressError, RankError
from compress.methods.groups import group_shape, side_by_side
from compress.methods.registry import METHODS
from compress.shape import ConvShape, LinearShape, stage_macs, stage_parameters, weighted
from tests.compress.test_methods import (
    CONVOLUTIONAL,
    EXACT,
    SIZE,
    built,
    dense_layer,
    full_rank_layer,
    inputs,
)
from tests.strategies import SEEDS, conv_shapes, normal, ranks_of, second_moment

EVERY = pytest.mark.parametrize("name", CONVOLUTIONAL)
# Most small kernels have nothing that spatial SVD or CP-4 could split.
MANY = settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.filter_too_much])

GROUPED = ConvShape(
    in_channels=8, out_channels=12, kernel_size=(3, 2), padding=(1, 0), stride=(1, 2), groups=4
)
WIDE = ConvShape(in_channels=256, out_channels=256, kernel_size=(3, 3), groups=4)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@EVERY
@MANY
@given(shape=conv_shapes(most_groups=3))
def test_full_rank_computes_the_same_function(name, shape):
    assume(METHODS[name].obstacle(group_shape(shape)) is None)
    torch.manual_seed(0)
    layer, x = dense_layer(shape), inputs(shape)
    torch.testing.assert_close(full_rank_layer(name, shape, layer)(x), layer(x), **EXACT)


@EVERY
def test_every_group_is_factorised_as_if_it_were_alone(name):
    method, shape = METHODS[name], replace(GROUPED, out_channels=16)
    group = group_shape(shape)
    assert (group.out_channels, group.in_channels, group.groups) == (4, 2, 1)
    weight = normal(0, 16, 2, 3, 2)
    metric = torch.stack([second_moment(normal(seed, 30, 12)) for seed in range(1, 5)])
    ranks = tuple(min(2, limit) for limit in method.limits(group))
    assert method.limits(shape) == method.limits(group)
    factors = method.decompose(shape, weight, metric).factors(ranks)
    alone = [
        method.decompose(group, weight[4 * g : 4 * g + 4], metric[g]).factors(ranks)
        for g in range(4)
    ]
    for key, factor in factors.items():
        assert torch.equal(factor, torch.cat([each[key] for each in alone]))
    approximation = dense_weight(shape, method.stages(shape, ranks), factors)
    single = [dense_weight(group, method.stages(group, ranks), each) for each in alone]
    torch.testing.assert_close(approximation, torch.cat(single))


@EVERY
@MANY
@given(shape=conv_shapes(most_groups=3), data=st.data())
def test_the_dense_weight_computes_what_the_stages_compute(name, shape, data):
    method = METHODS[name]
    assume(method.obstacle(group_shape(shape)) is None)
    shape = replace(shape, padding="valid", bias=False)
    ranks = data.draw(ranks_of(method, shape))
    stages, layer, x = method.stages(shape, ranks), dense_layer(shape).double(), inputs(shape)
    factors = method.decompose(shape, layer.weight, None).factors(ranks)
    layer.weight.data = dense_weight(shape, stages, factors)
    expected = built(stages, factors)(x.double())
    torch.testing.assert_close(layer(x.double()), expected)


COUNTED = [
    ConvShape(
        in_channels=8,
        out_channels=12,
        kernel_size=(3, 2, 2)[:axes],
        stride=(2, 1, 3)[:axes],
        padding=(0, 1, 1)[:axes],
        groups=groups,
    )
    for axes in (1, 2, 3)
    for groups in (1, 2, 4)
]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (name, shape)
        for name, method in METHODS.items()
        for shape in COUNTED
        if method.obstacle(group_shape(shape)) is None
    ],
    ids=str,
)
def test_parameters_and_macs_are_those_that_torch_counts(name, shape):
    method, size = METHODS[name], SIZE[: shape.axes]
    stages = method.stages(shape, tuple(min(2, limit) for limit in method.limits(shape)))
    layer = built(stages)
    assert stage_parameters(stages) == sum(p.numel() for p in layer.parameters())
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        layer(torch.empty(1, 8, *size))
    assert stage_macs(stages, size) == counter.get_total_flops() // 2  # torch counts two


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS)
def test_the_relative_error_is_that_of_the_outputs_of_all_groups(seed):
    weight, other = normal(seed, 6, 5), normal(seed + 1, 6, 5)
    samples = normal(seed + 2, 3, 40, 5)
    metric = torch.stack([second_moment(part) for part in samples])

    def outputs(matrix):
        return torch.cat([part @ matrix[2 * g : 2 * g + 2].T for g, part in enumerate(samples)], 1)

    expected = (outputs(other) - outputs(weight)).square().sum() / outputs(weight).square().sum()
    assert relative_error(weight, other, metric) == pytest.approx(float(expected))


@EVERY
def test_ranks_of_all_groups_together_are_multiples_that_pay(name):
    method = METHODS[name]
    grid = method.grid(WIDE)
    assert method.refusal(WIDE) is None
    assert grid == sorted(set(grid))
    for ranks in grid:
        stages = method.stages(WIDE, ranks)
        assert all(shape.out_channels % 16 == 0 for _, shape in weighted(stages))
        assert stage_parameters(stages) < WIDE.parameters
        assert stage_macs(stages, (4096, 4096)) < WIDE.macs((4096, 4096))
        assert all(shape.groups % 4 == 0 for _, shape in weighted(stages))


def test_many_narrow_groups_may_have_any_rank():
    resnext = replace(WIDE, in_channels=128, out_channels=128, groups=32)
    assert METHODS["svd"].grid(resnext) == [(1,), (2,), (3,)]
    # Two vectors of three in place of nine.
    depthwise = replace(WIDE, groups=256)
    assert METHODS["spatial_svd"].grid(depthwise) == [(1,)]


@pytest.mark.parametrize("name", ["svd", "tucker2", "cp3"])
def test_a_depthwise_convolution_has_nothing_between_its_channels(name):
    depthwise = replace(WIDE, groups=256)
    assert "the 256 groups together" in METHODS[name].refusal(depthwise)
    assert METHODS[name].grid(depthwise) == []


def test_ranks_are_limited_by_the_channels_of_a_group():
    assert METHODS["tucker2"].limits(GROUPED) == (3, 2)
    with pytest.raises(RankError, match=r"\(3, 3\) came; integers between 1 and \(3, 2\)"):
        METHODS["tucker2"].stages(GROUPED, (3, 3))


@pytest.mark.parametrize("size", [(48, 48), (3, 12, 12), (12, 12)])
def test_a_metric_of_other_groups_is_refused(size):
    with pytest.raises(CompressError, match=r"for each of the 4 groups was wanted"):
        METHODS["svd"].decompose(GROUPED, normal(0, 12, 2, 3, 2), torch.ones(size))


def test_a_linear_layer_is_its_own_only_group():
    shape = LinearShape(in_features=4, out_features=4)
    stages = METHODS["svd"].stages(shape, (2,))
    assert group_shape(shape) == shape
    assert side_by_side(stages, 1) == stages
