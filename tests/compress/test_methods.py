from dataclasses import asdict, replace
from functools import partial
from re import escape

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compress.catalog import METHODS as NAMES
from compress.equivalent import dense_weight, relative_error
from compress.errors import PlanError, RankError, UnsupportedLayerError, WeightsError
from compress.kernels import kernel_size
from compress.load import build_layer
from compress.methods.registry import METHODS, method_named
from compress.shape import ConvShape, LinearShape, stage_macs, stage_parameters, weighted
from tests.strategies import SEEDS, conv_shapes, normal, ranks_of, second_moment

# Float32 round-off of up to four convolutions over a few dozen products, outputs of order 10.
EXACT = {"rtol": 1e-4, "atol": 1e-4}
# The same in float64, and what the ridge of the fits may leave at full rank.
EXACT_FITTED = {"rtol": 0, "atol": 1e-5}

CONV = ConvShape(in_channels=6, out_channels=8, kernel_size=(3, 3), padding=(1, 1))
WIDE = replace(CONV, in_channels=192, out_channels=256)
LINEAR = LinearShape(in_features=256, out_features=512)
SMALL = LinearShape(in_features=12, out_features=18)
SPATIAL = ["spatial_svd", "tucker2", "cp3", "cp4", "tensor_train", "block_term"]
CONVOLUTIONAL = [name for name in METHODS if METHODS[name].obstacle(CONV) is None]
LINEAR_TOO = [name for name in METHODS if METHODS[name].obstacle(LINEAR) is None]
# Every method, with a layer that it takes.
EXAMPLES = {name: CONV if name in CONVOLUTIONAL else SMALL for name in METHODS}
EVERY = pytest.mark.parametrize("name", METHODS)
SIZE = (11, 12, 10)  # of an input

GEOMETRIES = [
    {},
    {"stride": (2, 1)},
    {"stride": (1, 3), "padding": (0, 1)},
    {"kernel_size": (3, 5), "padding": (0, 2)},
    {"kernel_size": (2, 4), "padding": "same"},
    {"padding": "same", "dilation": (2, 1)},
    {"padding": "valid"},
    {"padding": (2, 0), "dilation": (1, 2)},
    {"padding_mode": "reflect", "padding": (2, 1)},
    {"padding_mode": "replicate", "padding": (0, 3)},
    {"padding_mode": "circular", "padding": (1, 2), "stride": (2, 2)},
    {"padding_mode": "reflect", "padding": "same", "kernel_size": (4, 3)},
    {"bias": False},
    {"in_channels": 1, "kernel_size": (3, 2)},
    {"out_channels": 1},
]
TAKEN = pytest.mark.parametrize(
    ("name", "geometry"),
    [
        (name, geometry)
        for geometry in GEOMETRIES
        for name in CONVOLUTIONAL
        if METHODS[name].obstacle(replace(CONV, **geometry)) is None
    ],
    ids=str,
)


def dense_layer(shape):
    return getattr(nn, shape.type)(**asdict(shape))


def built(stages, factors=None, bias=None):
    """The stages as plain torch layers, as they are shipped."""
    layer = build_layer((stage.name, stage.shape.type, asdict(stage.shape)) for stage in stages)
    if factors is None:
        return layer
    state = {f"{name}.weight": factor for name, factor in factors.items()}
    if bias is not None:
        state[f"{stages[-1].name}.bias"] = bias
    layer.load_state_dict(state, assign=True)
    return layer


def widths(stages):
    """What each of the plain layers puts out."""
    return [
        shape.out_channels if isinstance(shape, ConvShape) else shape.out_features
        for _, shape in weighted(stages)
    ]


def example(name, seed=0):
    """The shape of a layer that a method takes, a weight, and a second moment of its inputs."""
    shape = EXAMPLES[name]
    weight = normal(seed, *kernel_size(shape))
    size = weight[0].numel()
    return shape, weight, second_moment(normal(seed + 1, 2 * size, size))


def inputs(shape):
    if isinstance(shape, LinearShape):
        return torch.randn(3, shape.in_features)
    return torch.randn(2, shape.in_channels, *SIZE[: shape.axes])


def full_rank_layer(name, shape, layer):
    method = METHODS[name]
    ranks = method.limits(shape)
    factors = method.decompose(shape, layer.weight, None).factors(ranks)
    return built(method.stages(shape, ranks), factors, layer.bias)


# Torch says once that it pads even kernels with a copy of the input.
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@TAKEN
def test_full_rank_computes_the_same_function(name, geometry):
    shape = replace(CONV, **geometry)
    layer, x = dense_layer(shape), inputs(shape)
    factorized = full_rank_layer(name, shape, layer)
    torch.testing.assert_close(factorized(x), layer(x), **EXACT)
    assert len(factorized) > 1


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", CONVOLUTIONAL)
@settings(deadline=None, max_examples=25)
@given(shape=conv_shapes())
def test_full_rank_computes_the_same_function_in_any_geometry(name, shape):
    assume(METHODS[name].obstacle(shape) is None)
    torch.manual_seed(0)
    layer, x = dense_layer(shape), inputs(shape)
    torch.testing.assert_close(full_rank_layer(name, shape, layer)(x), layer(x), **EXACT)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(5, 9), (9, 5)])
def test_full_rank_computes_the_same_linear_function(size, bias):
    shape = LinearShape(in_features=size[0], out_features=size[1], bias=bias)
    layer, x = dense_layer(shape), inputs(shape)
    factorized = full_rank_layer("svd", shape, layer)
    torch.testing.assert_close(factorized(x), layer(x), **EXACT)
    assert [type(stage) for stage in factorized] == [nn.Linear, nn.Linear]


def test_svd_takes_a_1x1_convolution_with_its_stride_and_padding():
    shape = replace(CONV, kernel_size=(1, 1), stride=(2, 2))
    layer, x = dense_layer(shape), inputs(shape)
    torch.testing.assert_close(full_rank_layer("svd", shape, layer)(x), layer(x), **EXACT)


@EVERY
@settings(deadline=None, max_examples=10)
@given(seed=SEEDS)
def test_full_rank_is_exact_in_the_norm_of_any_data(name, seed):
    method = METHODS[name]
    shape, weight, _ = example(name, seed)
    size = weight[0].numel()
    metric = second_moment(normal(seed + 1, size // 2, size))
    ranks = method.limits(shape)
    factors = method.decompose(shape, weight, metric).factors(ranks)
    found = dense_weight(shape, method.stages(shape, ranks), factors)
    torch.testing.assert_close(found, weight, **EXACT_FITTED)


@EVERY
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_in_the_norm_of_the_data_no_method_is_worse_than_in_the_plain_one(name, data):
    method, seed = METHODS[name], data.draw(SEEDS)
    shape, weight, _ = example(name, seed)
    size = weight[0].numel()
    metric = second_moment(normal(seed + 1, 3 * size // 4, size))
    ranks = data.draw(ranks_of(method, shape))
    stages = method.stages(shape, ranks)
    fitted, plain = (
        relative_error(
            weight,
            dense_weight(shape, stages, method.decompose(shape, weight, used).factors(ranks)),
            metric,
        )
        for used in (metric, None)
    )
    assert fitted <= plain + 1e-9


@EVERY
def test_factors_have_the_shapes_dtype_and_names_of_the_stages(name):
    method = METHODS[name]
    shape, weight, _ = example(name)
    decomposition, limits = method.decompose(shape, weight.half(), None), method.limits(shape)
    for ranks in [tuple(1 for _ in limits), limits]:
        factors, stages = decomposition.factors(ranks), method.stages(shape, ranks)
        weights = {f"{key}.weight": factor.shape for key, factor in factors.items()}
        expected = built(stages).state_dict()
        assert weights.items() <= {key: value.shape for key, value in expected.items()}.items()
        assert list(factors) == [name for name, _ in weighted(stages)]
        assert {factor.dtype for factor in factors.values()} == {torch.float16}


@EVERY
def test_factors_share_no_storage_with_the_weight_or_with_each_other(name):
    method, (shape, weight, _) = METHODS[name], example(name)
    decomposition, before = method.decompose(shape, weight, None), weight.clone()
    ranks = method.limits(shape)
    expected = {key: value.clone() for key, value in decomposition.factors(ranks).items()}
    for factor in decomposition.factors(ranks).values():
        factor.zero_()
    assert torch.equal(weight, before)
    for key, factor in decomposition.factors(ranks).items():
        assert torch.equal(factor, expected[key])
        assert factor.requires_grad is False


@EVERY
def test_what_was_asked_before_does_not_change_the_factors(name):
    method, (shape, weight, metric) = METHODS[name], example(name)
    few, most = tuple(2 for _ in method.limits(shape)), method.limits(shape)
    asked = method.decompose(shape, weight, metric)
    asked.factors(most)
    again = asked.factors(few)
    for key, factor in method.decompose(shape, weight, metric).factors(few).items():
        assert torch.equal(factor, again[key])


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@TAKEN
def test_parameters_and_macs_are_those_that_torch_counts(name, geometry):
    shape = replace(CONV, **geometry)
    stages = METHODS[name].stages(shape, tuple(min(2, r) for r in METHODS[name].limits(shape)))
    layer = built(stages)
    assert stage_parameters(stages) == sum(p.numel() for p in layer.parameters())
    with torch.device("meta"):
        x = torch.empty(1, shape.in_channels, 11, 12)
    with FlopCounterMode(display=False) as counter:
        layer(x)
    assert stage_macs(stages, (11, 12)) == counter.get_total_flops() // 2  # torch counts two


@pytest.mark.parametrize("name", LINEAR_TOO)
@pytest.mark.parametrize("vectors", [1, 7])
def test_parameters_and_macs_of_a_linear_layer_are_those_that_torch_counts(name, vectors):
    for ranks in METHODS[name].grid(LINEAR)[:2]:
        stages = METHODS[name].stages(LINEAR, ranks)
        layer = built(stages)
        assert stage_parameters(stages) == sum(p.numel() for p in layer.parameters())
        with FlopCounterMode(display=False) as counter:
            layer(torch.empty(1, vectors, 256, device="meta"))
        assert stage_macs(stages, (vectors, 1)) == counter.get_total_flops() // 2


def test_each_spatial_stage_takes_the_geometry_of_its_own_axis():
    shape = ConvShape(
        in_channels=4,
        out_channels=4,
        kernel_size=(3, 5),
        stride=(2, 3),
        padding=(1, 2),
        dilation=(2, 1),
        padding_mode="circular",
    )
    for name, ranks in {"spatial_svd": (2,), "cp4": (2,), "tensor_train": (2, 2, 2)}.items():
        stages = {stage.name: stage.shape for stage in METHODS[name].stages(shape, ranks)}
        for key, kernel, stride, padding, dilation in [
            ("vertical", (3, 1), (2, 1), (1, 0), (2, 1)),
            ("horizontal", (1, 5), (1, 3), (0, 2), (1, 1)),
        ]:
            stage = stages[key]
            assert (stage.kernel_size, stage.stride) == (kernel, stride)
            assert (stage.padding, stage.dilation) == (padding, dilation)
            assert stage.padding_mode == "circular"


@EVERY
@pytest.mark.parametrize("bias", [True, False])
def test_only_the_last_stage_has_the_bias(name, bias):
    shape = replace(EXAMPLES[name], bias=bias)
    *first, last = METHODS[name].stages(shape, METHODS[name].limits(shape))
    assert last.shape.bias is bias
    assert not any(getattr(stage.shape, "bias", False) for stage in first)


@pytest.mark.parametrize("name", SPATIAL)
@pytest.mark.parametrize(
    "shape", [replace(WIDE, kernel_size=(1, 1)), LINEAR], ids=["1x1", "linear"]
)
def test_what_has_no_places_to_split_is_left_to_svd(name, shape):
    assert "svd factorises it" in METHODS[name].refusal(shape)
    with pytest.raises(UnsupportedLayerError, match="svd"):
        METHODS[name].limits(shape)
    assert METHODS["svd"].refusal(shape) is None


def test_kernels_of_one_row_or_column_are_left_to_the_method_that_fits_them():
    column, row = replace(WIDE, kernel_size=(3, 1)), replace(WIDE, kernel_size=(1, 3))
    assert "svd" in METHODS["spatial_svd"].refusal(column)
    assert METHODS["spatial_svd"].refusal(row) is None
    for shape in (column, row):
        assert "cp3" in METHODS["cp4"].refusal(shape)
        assert METHODS["cp3"].refusal(shape) is None
        assert "tucker2" in METHODS["tensor_train"].refusal(shape)
        for name in ("tucker2", "block_term"):
            assert METHODS[name].refusal(shape) is None


@EVERY
def test_a_layer_too_small_to_become_cheaper_is_refused_with_the_reason(name):
    shape = ConvShape(in_channels=2, out_channels=2, kernel_size=(3, 3))
    if name not in CONVOLUTIONAL:
        shape = LinearShape(in_features=4, out_features=6)
    assert METHODS[name].grid(shape) == []
    assert "fewer parameters and MACs" in METHODS[name].refusal(shape)
    assert len(METHODS[name].stages(shape, METHODS[name].limits(shape))) > 1


@EVERY
def test_ranks_outside_their_limits_are_refused_with_both(name):
    method, (shape, weight, _) = METHODS[name], example(name)
    limits = method.limits(shape)
    decomposition = method.decompose(shape, weight, None)
    for ranks in [tuple(limit + 1 for limit in limits), tuple(0 for _ in limits), (*limits, 1)]:
        for ask in (partial(method.stages, shape), decomposition.factors):
            with pytest.raises(RankError) as caught:
                ask(ranks)
            assert str(ranks) in str(caught.value)
            assert str(limits) in str(caught.value)


@EVERY
def test_a_weight_of_another_shape_is_refused_with_both(name):
    shape, weight, _ = example(name)
    shorter = weight[..., :-1]
    sizes = f"{tuple(shorter.shape)} came; {tuple(weight.shape)} was wanted"
    with pytest.raises(WeightsError, match=escape(sizes)):
        METHODS[name].decompose(shape, shorter, None)


@pytest.mark.parametrize(
    "shape",
    [
        WIDE,
        replace(WIDE, stride=(2, 2)),
        replace(WIDE, in_channels=128, kernel_size=(5, 3), dilation=(9, 1), padding="valid"),
        replace(WIDE, in_channels=3, out_channels=64, kernel_size=(7, 7), stride=(2, 2)),
        replace(WIDE, in_channels=24, out_channels=40),
        replace(WIDE, in_channels=1, out_channels=64),
        replace(WIDE, kernel_size=(1, 1)),
        LINEAR,
        LinearShape(in_features=25088, out_features=4096),
    ],
    ids=str,
)
@EVERY
def test_a_grid_is_short_ascending_and_cheaper_than_dense(name, shape):
    method = METHODS[name]
    grid = method.grid(shape)
    assert (not grid) == (method.refusal(shape) is not None)
    assert len(grid) <= 12
    assert grid == sorted(set(grid))
    narrow = isinstance(shape, ConvShape) and shape.in_channels < 64
    step = 4 if narrow or name == "hierarchical_tucker" else 16  # of a mode, not of all features
    for ranks in grid:
        stages = method.stages(shape, ranks)
        assert all(width % step == 0 for width in widths(stages)[:-1])
        assert stage_parameters(stages) < shape.parameters
        size = (4096, 4096) if isinstance(shape, ConvShape) else (1, 1)  # no rim to speak of
        assert stage_macs(stages, size) < shape.macs(size)


def test_the_grid_narrows_with_the_layer():
    narrow = replace(WIDE, in_channels=24, out_channels=40)
    assert METHODS["spatial_svd"].grid(WIDE)[:2] == [(16,), (32,)]
    assert METHODS["spatial_svd"].grid(narrow) == [(8,), (16,), (24,), (32,), (40,)]
    assert METHODS["svd"].grid(replace(WIDE, in_channels=1, out_channels=64)) == [(4,)]


def test_the_grid_reaches_the_last_rank_that_pays():
    assert METHODS["svd"].grid(LINEAR)[-1] == (160,)  # 170 = 256 * 512 / (256 + 512) breaks even
    assert METHODS["cp3"].grid(WIDE)[-1] == (960,)  # 968 = 256 * 192 * 9 / (256 + 192 + 9)


def test_the_first_1x1_counts_at_the_resolution_before_the_stride():
    strided = replace(WIDE, stride=(2, 2))
    # Four input pixels for each output pixel: 256 * 192 * 9 / (256 + 4 * 192 + 9) = 428.
    assert METHODS["cp3"].grid(strided)[-1] == (416,)
    patches = ConvShape(in_channels=3, out_channels=768, kernel_size=(16, 16), stride=(16, 16))
    # 256 input pixels for each: 3 * 256 * 768 / (3 * 256 + 256 + 768) = 329.
    assert METHODS["cp3"].grid(patches)[-1] == (328,)


def test_cp_ranks_may_exceed_the_channel_counts():
    for name in ("cp3", "cp4"):
        assert METHODS[name].grid(WIDE)[-1][0] > 256
        assert METHODS[name].limits(WIDE) == (9 * 192,)


def test_tucker_ranks_are_out_then_in_and_in_proportion_to_the_channels():
    assert METHODS["tucker2"].limits(WIDE) == (256, 192)
    assert (128, 96) in METHODS["tucker2"].grid(WIDE)
    assert (64, 48) in METHODS["tucker2"].grid(WIDE)
    stages = METHODS["tucker2"].stages(WIDE, (64, 48))
    assert stages[1].shape.out_channels == 64
    assert stages[1].shape.in_channels == 48


def test_train_ranks_go_from_inputs_to_outputs():
    method = METHODS["tensor_train"]
    assert method.limits(WIDE) == (192, 576, 256)
    assert (96, 112, 128) in method.grid(WIDE)  # 112 is nearest to the root of 96 * 128
    first, vertical, horizontal, last = (stage.shape for stage in method.stages(WIDE, (16, 32, 48)))
    assert (first.out_channels, vertical.in_channels) == (16, 16)
    assert (vertical.out_channels, horizontal.in_channels) == (32, 32)
    assert (horizontal.out_channels, last.in_channels) == (48, 48)


def test_no_train_of_the_grid_has_ranks_that_its_neighbours_cannot_fill():
    uneven = replace(WIDE, in_channels=16, out_channels=512)
    grid = METHODS["tensor_train"].grid(uneven)
    assert grid
    assert all(middle <= 3 * rank_in for rank_in, middle, _ in grid)


def test_block_terms_are_the_groups_of_the_core():
    method = METHODS["block_term"]
    assert method.limits(WIDE) == (256, 192, 192)
    assert (32, 24, 4) in method.grid(WIDE)
    first, core, last = (stage.shape for stage in method.stages(WIDE, (32, 24, 4)))
    assert (first.out_channels, core.in_channels) == (96, 96)
    assert (core.out_channels, last.in_channels) == (128, 128)
    assert core.groups == 4


def test_one_block_term_is_tucker2():
    weight, metric = normal(0, 8, 6, 3, 3), second_moment(normal(1, 99, 54))
    for used in (metric, None):
        block, tucker = (
            METHODS[name].decompose(CONV, weight, used).factors(ranks)
            for name, ranks in {"block_term": (4, 3, 1), "tucker2": (4, 3)}.items()
        )
        assert all(torch.equal(block[key], tucker[key]) for key in tucker)


def test_the_registry_knows_the_methods_of_the_catalog_by_their_names():
    assert tuple(METHODS) == NAMES
    assert all(method_named(name).name == name for name in NAMES)
    with pytest.raises(PlanError, match="'tt' came, one of svd, spatial_svd"):
        method_named("tt")


class Silent:
    """An algorithm that does not know its error."""

    def __init__(self, algorithm):
        self.factors = algorithm.factors


@pytest.mark.parametrize("aware", [True, False])
@pytest.mark.parametrize("name", ["svd", "spatial_svd", "tucker2", "cp3", "cp4"])
def test_the_error_of_a_decomposition_is_that_of_its_factors(name, aware):
    shape = ConvShape(in_channels=8, out_channels=12, kernel_size=(3, 3))
    weight = normal(0, 12, 8, 3, 3)
    metric = second_moment(normal(1, 200, 72) @ normal(2, 72, 72)) if aware else None
    decomposition = METHODS[name].decompose(shape, weight, metric)
    for ranks in METHODS[name].grid(shape)[-1:] + METHODS[name].grid(shape)[:1]:
        stages = METHODS[name].stages(shape, ranks)
        found = dense_weight(shape, stages, decomposition.factors(ranks))
        expected = relative_error(weight, found, metric)
        # CP sweeps in the plain norm multiply in float32
        assert decomposition.error(ranks) == pytest.approx(expected, rel=1e-5)
        assert 1e-3 < expected < 1


def test_an_error_that_is_not_known_is_left_to_the_caller():
    shape = ConvShape(in_channels=8, out_channels=12, kernel_size=(3, 3))
    alone = METHODS["svd"].decompose(shape, normal(0, 12, 8, 3, 3), None)
    assert replace(alone, algorithms=[*map(Silent, alone.algorithms)]).error((2,)) is None
    grouped = METHODS["svd"].decompose(replace(shape, groups=2), normal(0, 12, 4, 3, 3), None)
    assert grouped.error((2,)) is None
