"""Layers whose features are folded: what they compute, keep, export and refuse."""

import copy

import pytest
import torch
from torch import nn

from compress.artifact import write_result
from compress.calibration import moments
from compress.equivalent import dense_weight
from compress.errors import RankError, UnsupportedLayerError
from compress.load import FactorizedLayer, Flat, Grid, build_sequential, load
from compress.methods.registry import METHODS
from compress.plan import Choice, Plan
from compress.reference import Reference
from compress.repair import repair_
from compress.shape import (
    ConvShape,
    LinearShape,
    peak_activation,
    stage_macs,
    stage_parameters,
)
from compress.surgery import factorize_, factorized
from tests.strategies import normal, second_moment

LINEAR = LinearShape(in_features=12, out_features=18)
CHOICES = [
    Choice("kronecker", (3, 3, 2)),
    Choice("semi_tensor", (2, 3)),
    Choice("hierarchical_tucker", (5, 2, 4, 2, 3)),
]
EACH = pytest.mark.parametrize("choice", CHOICES, ids=str)
CONV_CHOICE = Choice("kronecker", (3, 2, 4))
CLOSE = {"rtol": 1e-4, "atol": 1e-5}

# (N, 4, 6, 6) -> (N, 3)
ROWS = [
    ["conv", "Conv2d", {"in_channels": 4, "out_channels": 8, "kernel_size": 3, "padding": 1}],
    ["relu", "ReLU", {}],
    ["flatten", "Flatten", {}],
    ["hidden", "Linear", {"in_features": 288, "out_features": 12}],
    ["classify", "Linear", {"in_features": 12, "out_features": 3}],
]
ARCHITECTURE = {"registry": "examples", "name": "folded", "rows": ROWS}
PLANS = [
    Plan({"conv": Choice("kronecker", (3, 2, 4)), "hidden": Choice("semi_tensor", (4, 6))}),
    Plan(
        {
            "conv": Choice("kronecker", (2, 4, 1)),
            "hidden": Choice("hierarchical_tucker", (6, 2, 3, 9, 8)),
        }
    ),
    Plan({"hidden": Choice("kronecker", (4, 2, 3)), "classify": Choice("semi_tensor", (2, 3))}),
]
PLANNED = pytest.mark.parametrize("plan", PLANS, ids=["semi_tensor", "tree", "kronecker"])


@pytest.fixture
def dense():
    return build_sequential(ROWS).eval()


def linear(choice):
    """A dense layer, and the one in its place."""
    layer = nn.Linear(12, 18)
    return layer, factorized(layer, choice)


def equivalent(layer, choice, metric=None):
    """The dense layer that computes what the factors compute."""
    method, shape = METHODS[choice.method], LINEAR
    weight = layer.weight.detach()
    factors = method.decompose(shape, weight, metric).factors(choice.ranks)
    result = copy.deepcopy(layer)
    found = dense_weight(shape, method.stages(shape, choice.ranks), factors)
    result.weight.data = found.to(weight.dtype)
    return result


@EACH
@pytest.mark.parametrize("size", [(12,), (5, 12), (2, 3, 12), (2, 0, 12)], ids=str)
@torch.no_grad()
def test_inputs_of_any_number_of_axes_meet_the_same_matrix(choice, size):
    layer, found = linear(choice)
    x = torch.randn(size)
    torch.testing.assert_close(found(x), equivalent(layer, choice)(x), **CLOSE)


@EACH
def test_the_bias_is_that_of_the_layer(choice):
    layer, found = linear(choice)
    with torch.no_grad():
        torch.testing.assert_close(found(torch.zeros(2, 12)), layer.bias.expand(2, -1))


@torch.no_grad()
def test_a_convolution_takes_batches_of_images_in_every_layout():
    conv = nn.Conv2d(8, 6, 3, stride=(2, 1), padding=1)
    found = factorized(conv, CONV_CHOICE)
    x = torch.randn(3, 8, 7, 5)
    expected = found(x)
    wide = copy.deepcopy(found).to(memory_format=torch.channels_last)
    torch.testing.assert_close(wide(x.to(memory_format=torch.channels_last)), expected, **CLOSE)
    torch.testing.assert_close(found(x[1:2]), expected[1:2])
    assert found(x[:0]).shape == (0, 6, 4, 5)
    with pytest.raises(ValueError, match=r"\(8, 7, 5\) came; a batch \(N, C, \*size\) was wanted"):
        found(x[0])


def test_the_reduce_stage_of_a_semi_tensor_is_a_product_with_the_identity():
    layer, found = linear(Choice("semi_tensor", (3, 4)))
    with torch.no_grad():
        slices = found[:3](torch.eye(12)).T  # (4 slices of 3 outputs, 12)
        product = torch.kron(found.reduce.weight, torch.eye(4))  # (3 outputs of 4 slices, 12)
        torch.testing.assert_close(slices.reshape(4, 3, 12).transpose(0, 1).flatten(0, 1), product)
        torch.testing.assert_close(
            equivalent(layer, Choice("semi_tensor", (3, 4))).weight, found.expand.weight @ slices
        )


@pytest.mark.parametrize("aware", [False, True])
def test_a_semi_tensor_is_the_kronecker_sum_of_one_slice_of_outputs(aware):
    weight = normal(0, 18, 12)
    metric = second_moment(normal(1, 40, 12)) if aware else None
    semi, kronecker = (
        METHODS[name].decompose(LINEAR, weight, metric).factors(ranks)
        for name, ranks in (("semi_tensor", (3, 4)), ("kronecker", (3, 1, 4)))
    )
    assert semi.keys() == kronecker.keys()
    assert all(torch.equal(semi[key], kronecker[key]) for key in semi)
    assert METHODS["semi_tensor"].stages(LINEAR, (3, 4)) == METHODS["kronecker"].stages(
        LINEAR, (3, 1, 4)
    )


def test_one_slice_each_gives_the_stages_of_svd():
    for shape in (LINEAR, ConvShape(in_channels=4, out_channels=6, kernel_size=(3, 3))):
        expected = METHODS["svd"].stages(shape, (3,))
        assert METHODS["kronecker"].stages(shape, (3, 1, 1)) == expected


@pytest.mark.parametrize(
    ("choice", "parameters", "macs"),
    [
        # a = 12 / 2 inputs of a slice, 3 terms in 3 slices out; 3 terms in 2 slices, 18 / 3 outputs
        (CHOICES[0], 6 * 9 + 6 * 6, 2 * 6 * 9 + 3 * 6 * 6),
        (CHOICES[1], 4 * 2 + 6 * 18, 3 * 4 * 2 + 6 * 18),
        # modes (3, 4) and (3, 6)
        (
            CHOICES[2],
            2 * 3 + 3 * 4 + 6 * 5 + 5 * 8 + 2 * 3 + 4 * 6,
            4 * (2 * 3) + 2 * (3 * 4) + 6 * 5 + 5 * 8 + 4 * (2 * 3) + 3 * (4 * 6),
        ),
    ],
    ids=str,
)
def test_parameters_and_macs_by_hand(choice, parameters, macs):
    stages = METHODS[choice.method].stages(LINEAR, choice.ranks)
    assert stage_parameters(stages) == parameters + 18
    assert stage_macs(stages, (7, 1)) == 7 * macs


def test_of_as_many_terms_slices_cost_no_parameters_but_macs():
    shape = ConvShape(in_channels=64, out_channels=96, kernel_size=(3, 3), padding=(1, 1))
    costs = {
        slices: METHODS["kronecker"].stages(shape, (8, slices, slices)) for slices in (1, 2, 4)
    }
    one = costs[1]
    for slices, stages in costs.items():
        assert stage_parameters(stages) == stage_parameters(one)
        assert stage_macs(stages, (9, 9)) == slices * stage_macs(one, (9, 9))


def test_the_widest_stage_counts_all_slices():
    shape = ConvShape(in_channels=8, out_channels=6, kernel_size=(3, 3), padding=(1, 1))
    stages = METHODS["kronecker"].stages(shape, (10, 2, 4))
    # behind the first layer: 4 slices of 20 channels, parted anew into 2 of 40
    assert peak_activation(stages, (5, 5)) == 25 * 160
    rows = METHODS["semi_tensor"].stages(LINEAR, (3, 4))
    assert peak_activation(rows, (7, 1)) == 7 * (12 + 18)


@EACH
def test_gradients_reach_every_factor_and_a_copy_is_alike(choice):
    _, found = linear(choice)
    found(torch.randn(5, 12)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in found.parameters())
    twin = copy.deepcopy(found)
    x = torch.randn(4, 12)
    assert torch.equal(twin(x), found(x))
    assert twin.state_dict().keys() == found.state_dict().keys()
    assert isinstance(twin, FactorizedLayer)


def test_the_folds_say_what_they_are():
    found = factorized(nn.Conv2d(8, 6, 3), CONV_CHOICE)
    assert "Grid(2, 4, axes=2, groups=1)" in str(found)
    assert "Flat(3, 2, axes=2, groups=1, bias=True)" in str(found)
    assert not list(Grid(2, 4).parameters())
    assert not list(Flat(2, 4).parameters())


@PLANNED
def test_a_result_is_loaded_and_exported(plan, dense, tmp_path):
    x = torch.randn(2, 4, 6, 6)
    factorize_(dense, plan, moments(dense, [x], list(plan.choices)))
    write_result(
        tmp_path,
        dense,
        plan,
        architecture=ARCHITECTURE,
        input_shape=(4, 6, 6),
        evidence={},
        example=x,
        programs=["model.pt2"] if plan is not PLANS[2] else (),
    )
    with torch.no_grad():
        assert torch.equal(load(tmp_path)(x), dense(x))
        if plan is not PLANS[2]:
            program = torch.export.load(tmp_path / "model.pt2").module()
            for count in (1, 5):
                batch = torch.randn(count, 4, 6, 6)
                torch.testing.assert_close(program(batch), dense(batch), **CLOSE)


@PLANNED
def test_repair_refits_last_layers_and_leaves_folded_ones(plan, dense):
    batches = list(torch.randn(512, 4, 6, 6).split(128))
    model = copy.deepcopy(dense)
    factorize_(model, plan)
    report = repair_(model, plan, Reference.of(dense, list(plan.choices), batches))
    semi = [name for name, choice in plan if choice.method == "semi_tensor"]
    assert set(report.refitted) <= set(semi)
    assert report.error_after <= report.error_before
    if semi:
        assert report.refitted
        assert report.error_after < 0.9 * report.error_before


@EACH
def test_the_data_lower_the_error_of_the_outputs(choice):
    layer = nn.Linear(12, 18)
    x = torch.randn(200, 12) @ torch.randn(12, 12) * torch.logspace(0, -1, 12)
    metric = second_moment(x.double())
    with torch.no_grad():
        plain, aware = (
            float((equivalent(layer, choice, used)(x) - layer(x)).square().mean())
            for used in (None, metric)
        )
    assert aware < 0.9 * plain


@pytest.mark.parametrize(
    ("name", "shape", "told"),
    [
        ("kronecker", LinearShape(in_features=27, out_features=64), "no divisor in common"),
        ("semi_tensor", LinearShape(in_features=31, out_features=64), "31 inputs have no divisor"),
        ("semi_tensor", ConvShape(in_channels=8, out_channels=8, kernel_size=(1, 1)), "spatial"),
        ("hierarchical_tucker", LinearShape(in_features=31, out_features=64), "31 inputs cannot"),
        ("hierarchical_tucker", LinearShape(in_features=64, out_features=2), "2 outputs cannot"),
        (
            "hierarchical_tucker",
            ConvShape(in_channels=8, out_channels=8, kernel_size=(3,)),
            "tensor_train",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_folded_is_refused_with_the_reason(name, shape, told):
    assert told in METHODS[name].refusal(shape)
    assert METHODS[name].grid(shape) == []
    with pytest.raises(UnsupportedLayerError, match=told):
        METHODS[name].limits(shape)


@pytest.mark.parametrize(
    "choice",
    [Choice("kronecker", (3, 4, 2)), Choice("kronecker", (3, 3, 5)), Choice("semi_tensor", (3, 5))],
    ids=str,
)
def test_slices_that_are_no_divisor_are_refused(choice):
    with pytest.raises(RankError, match=r"slices of 1[28] features came; a divisor"):
        METHODS[choice.method].stages(LINEAR, choice.ranks)


def test_the_grids_of_large_layers():
    wide = LinearShape(in_features=3136, out_features=512)
    assert METHODS["kronecker"].grid(wide)[0] == (4, 4, 4)
    assert {ranks[1:] for ranks in METHODS["kronecker"].grid(wide)} == {(2, 2), (4, 4)}
    assert {slices for _, slices in METHODS["semi_tensor"].grid(wide)} == {2, 4}
    # 3136 * 512 / (2 * (3136 + 512)) = 220 terms of two slices break even
    assert METHODS["kronecker"].grid(wide)[-1] == (216, 2, 2)
    # 3136 * 512 / (3136 + 2 * 512) = 385
    assert METHODS["semi_tensor"].grid(wide)[-1] == (384, 2)
    trees = METHODS["hierarchical_tucker"].grid(wide)
    # modes (16, 32) and (56, 56), a half or three quarters of each
    assert {ranks[1:] for ranks in trees} == {(8, 16, 28, 28), (12, 24, 40, 40)}
    assert all(root % 16 == 0 for root, *_ in trees)
