"""Every kind of layer that is factorised, from the dense network to the files of the result."""

import copy

import pytest
import torch
from torch import nn

from compress.artifact import write_result
from compress.calibration import moments
from compress.errors import RankError
from compress.layers import inspect, shape_of
from compress.load import build_sequential, load
from compress.methods.registry import METHODS
from compress.plan import Choice, Plan
from compress.reference import Reference
from compress.repair import repair_
from compress.surgery import factorize_, is_factorized

# The layer, its arguments, and the size of one of its inputs.
KINDS = {
    "1d": ("Conv1d", {"kernel_size": 5, "padding": "same"}, (20,)),
    "1d grouped": ("Conv1d", {"kernel_size": 5, "stride": 2, "groups": 2}, (21,)),
    "2d grouped": ("Conv2d", {"kernel_size": 3, "padding": 1, "groups": 4}, (7, 6)),
    "3d": ("Conv3d", {"kernel_size": 3, "padding": (1, 0, 1)}, (4, 5, 6)),
    "1d transposed": ("ConvTranspose1d", {"kernel_size": 5, "stride": 2}, (9,)),
    "2d transposed": (
        "ConvTranspose2d",
        {"kernel_size": (3, 4), "stride": (1, 2), "padding": (2, 1), "output_padding": (0, 1)},
        (6, 5),
    ),
    "2d transposed grouped": ("ConvTranspose2d", {"kernel_size": 3, "groups": 4}, (5, 5)),
    "3d transposed": ("ConvTranspose3d", {"kernel_size": 3, "dilation": (1, 2, 1)}, (2, 3, 3)),
    "3d grouped": ("Conv3d", {"kernel_size": (1, 3, 3), "groups": 2, "bias": False}, (2, 5, 5)),
}
FULL = [
    (kind, method)
    for kind, (type_, arguments, _) in KINDS.items()
    for method in METHODS
    if METHODS[method].refusal(shape_of(getattr(nn, type_)(16, 16, **arguments))) is None
]


def architecture(kind):
    type_, arguments, size = KINDS[kind]
    settings = {"in_channels": 16, "out_channels": 16, **arguments}
    output = getattr(nn, type_)(**settings)(torch.zeros(1, 16, *size))
    rows = [
        ["layer", type_, settings],
        ["relu", "ReLU", {}],
        ["flatten", "Flatten", {}],
        ["classify", "Linear", {"in_features": output.numel(), "out_features": 3}],
    ]
    return {"registry": "examples", "name": "kind", "rows": rows}


def images(kind, count, seed=1):
    """Channels that have much in common, as behind a layer that was trained."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(count, 5, *KINDS[kind][2], generator=generator)
    mixture = torch.randn(16, 5, generator=torch.Generator().manual_seed(0))
    return torch.einsum("oc,nc...->no...", mixture, common)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def dense(kind):
    return build_sequential(architecture(kind)["rows"]).eval()


def half(layer):
    """A choice that loses something."""
    (limit,) = METHODS["svd"].limits(shape_of(layer))
    return Plan({"layer": Choice("svd", (limit // 2,))})


def distance(model, dense, x):
    with torch.no_grad():
        return float((model.layer(x) - dense.layer(x)).square().mean())


def test_it_is_open_to_methods(dense):
    (report,) = [report for report in inspect(dense) if report.name == "layer"]
    assert report.reason is None
    assert report.shape == shape_of(dense.layer)
    assert "svd" not in report.refusals


@pytest.mark.parametrize(("kind", "method"), FULL)
def test_full_rank_loses_nothing_with_the_data_and_without(kind, dense, method):
    x = images(kind, 4)
    plan = Plan({"layer": Choice(method, METHODS[method].limits(shape_of(dense.layer)))})
    for statistics in (None, moments(dense, [x], ["layer"])):
        model = copy.deepcopy(dense)
        factorize_(model, plan, statistics)
        assert is_factorized(model.layer)
        torch.testing.assert_close(model(x), dense(x), rtol=1e-3, atol=1e-3)


def test_the_data_lower_the_error_of_the_outputs(kind, dense):
    x, errors = images(kind, 64), []
    for statistics in (None, moments(dense, [x], ["layer"])):
        model = copy.deepcopy(dense)
        factorize_(model, half(dense.layer), statistics)
        errors.append(distance(model, dense, x))
    assert errors[1] < 0.9 * errors[0]


def test_repair_refits_the_last_factor(kind, dense):
    """What least squares on the very outputs would find, up to the ridge."""
    if dense.layer.bias is not None:
        dense.layer.bias.data = torch.linspace(-3, 3, 16)
    plan, x = half(dense.layer), images(kind, 64)
    model = copy.deepcopy(dense)
    factorize_(model, plan)
    with torch.no_grad():
        model.layer[-1].weight.mul_(0.7)
    before = distance(model, dense, x)
    report = repair_(model, plan, Reference.of(dense, ["layer"], list(x.split(16))))
    assert report.refitted == ("layer",)
    assert distance(model, dense, images(kind, 64, seed=2)) < before
    with torch.no_grad():
        groups = model.layer[-1].groups
        h, y = (
            out.movedim(1, -1).flatten(0, -2).unflatten(1, (groups, -1)).movedim(1, 0).double()
            for out in (model.layer[0](x), dense.layer(x))
        )
        if model.layer[-1].bias is not None:
            h = torch.cat([h, torch.ones_like(h[..., :1])], 2)
        best = h @ torch.linalg.pinv(h) @ y
        assert distance(model, dense, x) < 1.05 * float((best - y).square().mean()) + 1e-9


def test_a_result_is_loaded(kind, dense, tmp_path):
    plan, x = half(dense.layer), images(kind, 2)
    factorize_(dense, plan)
    write_result(
        tmp_path,
        dense,
        plan,
        architecture=architecture(kind),
        input_shape=x.shape[1:],
        evidence={},
        example=x,
        programs=["model.pt2"] if kind == "3d grouped" else (),
    )
    assert torch.equal(load(tmp_path)(x), dense(x))


def test_one_bad_choice_leaves_the_network_whole(dense):
    layers = dict(dense.named_modules())
    with pytest.raises(RankError):
        factorize_(dense, Plan({**half(dense.layer).choices, "classify": Choice("svd", (99,))}))
    assert dict(dense.named_modules()) == layers
