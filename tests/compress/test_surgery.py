import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations

from compress.calibration import moments
from compress.catalog import METHODS
from compress.errors import CompressError, PlanError, RankError, UnsupportedLayerError
from compress.layers import shape_of
from compress.methods.registry import method_named
from compress.plan import Choice, Plan
from compress.surgery import factorize_, factorized, is_factorized, stage_shape

# Float32 round-off through two or three stages of at most a hundred terms, with room to spare.
EXACT = {"rtol": 1e-4, "atol": 1e-5}

# torch tells about its own copy of the input, once a process.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even:UserWarning")

PLAN = Plan({"conv2": Choice("svd", (4,)), "classify": Choice("svd", (3,))})


def full(layer, method):
    """The choice that loses nothing."""
    return Choice(method, method_named(method).limits(shape_of(layer)))


@settings(max_examples=60, deadline=None)
@given(
    method=st.sampled_from(["svd", "spatial_svd", "tucker2"]),
    kernel_size=st.tuples(st.integers(2, 4), st.integers(2, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.one_of(
        st.tuples(st.integers(0, 3), st.integers(0, 3)), st.sampled_from(["same", "valid"])
    ),
    padding_mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    bias=st.booleans(),
)
def test_full_rank_computes_the_same_function(method, stride, padding, **geometry):
    stride = 1 if padding == "same" else stride
    conv = nn.Conv2d(4, 6, stride=stride, padding=padding, **geometry)
    x = torch.randn(2, 4, 9, 10)
    layer = factorized(conv, full(conv, method))
    torch.testing.assert_close(layer(x), conv(x), **EXACT)
    assert len(layer) > 1


@pytest.mark.parametrize("bias", [True, False])
def test_full_rank_of_a_linear_layer_computes_the_same_function(bias):
    linear = nn.Linear(6, 5, bias=bias)
    x = torch.randn(2, 3, 6)
    layer = factorized(linear, full(linear, "svd"))
    torch.testing.assert_close(layer(x), linear(x), **EXACT)
    assert is_factorized(layer)


@pytest.mark.parametrize("method", METHODS)
def test_a_factorized_layer_has_the_stages_of_its_method(method):
    dense, x = nn.Conv2d(8, 8, 3, padding=1), torch.randn(2, 8, 6, 6)
    if method_named(method).obstacle(shape_of(dense)):
        dense, x = nn.Linear(8, 8), torch.randn(2, 3, 8)
    ranks = tuple(min(limit, 4) for limit in method_named(method).limits(shape_of(dense)))
    layer = factorized(dense, Choice(method, ranks))
    stages = method_named(method).stages(shape_of(dense), ranks)
    assert [(name, stage_shape(child)) for name, child in layer.named_children()] == [
        (stage.name, stage.shape) for stage in stages
    ]
    assert torch.equal(layer[-1].bias, dense.bias)
    assert layer(x).shape == x.shape


@torch.no_grad()
def test_the_metric_lowers_the_error_of_the_outputs():
    conv = nn.Conv2d(4, 8, 3)
    x = nn.functional.interpolate(torch.randn(32, 4, 3, 3), size=(8, 8), mode="bilinear")
    statistics = moments(nn.Sequential(conv), [x], ["0"])
    errors = []
    for some in (None, statistics):
        model = nn.Sequential(conv)
        factorize_(model, Plan({"0": Choice("svd", (3,))}), some)
        errors.append(float((model(x) - conv(x)).square().mean()))
    assert errors[1] < 0.9 * errors[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_is_kept_and_the_work_is_done_in_float64(dtype):
    linear = nn.Linear(12, 10).to(dtype)
    layer = factorized(linear, full(linear, "svd"))
    assert {parameter.dtype for parameter in layer.parameters()} == {dtype}
    # Both factors are rounded once to the dtype; float64 adds the round-off of the work itself.
    product = layer[1].weight.double() @ layer[0].weight.double()
    error = (product - linear.weight.double()).norm() / linear.weight.double().norm()
    assert error < 8 * torch.finfo(dtype).eps


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_device_is_kept():
    linear = nn.Linear(12, 10, device="cuda")
    statistics = moments(nn.Sequential(linear), [torch.randn(64, 12, device="cuda")], ["0"])
    layer = factorized(linear, Choice("svd", (3,)), statistics["0"].second)
    assert {parameter.device.type for parameter in layer.parameters()} == {"cuda"}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("weight", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_mode_and_gradients_are_those_of_the_layer(training, weight, bias):
    linear = nn.Linear(4, 4).train(training)
    linear.weight.requires_grad_(weight)
    linear.bias.requires_grad_(bias)
    layer = factorized(linear, Choice("svd", (2,)))
    assert {module.training for module in layer.modules()} == {training}
    assert [stage.weight.requires_grad for stage in layer] == [weight, weight]
    assert layer[-1].bias.requires_grad == bias


def test_no_storage_is_shared_with_the_layer_or_the_decomposition():
    linear = nn.Linear(6, 4)
    decomposition = method_named("svd").decompose(shape_of(linear), linear.weight.detach(), None)
    first = factorized(linear, Choice("svd", (2,)), decomposition=decomposition)
    expected = first(torch.ones(1, 6)).detach().clone()
    with torch.no_grad():
        for parameter in [
            *linear.parameters(),
            *factorized(linear, Choice("svd", (2,)), decomposition=decomposition).parameters(),
            *factorized(linear, Choice("svd", (3,)), decomposition=decomposition).parameters(),
        ]:
            parameter.zero_()
    assert torch.equal(first(torch.ones(1, 6)), expected)
    assert all(parameter.is_contiguous() for parameter in first.parameters())
    assert all(p.untyped_storage().nbytes() == p.nbytes for p in first.parameters())


def test_a_decomposition_serves_other_ranks_as_if_made_for_them():
    linear = nn.Linear(6, 4)
    metric = torch.diag(torch.arange(1.0, 7).double())
    decomposition = method_named("svd").decompose(shape_of(linear), linear.weight.detach(), metric)
    x = torch.randn(3, 6)
    for rank in (3, 1, 2):
        choice = Choice("svd", (rank,))
        torch.testing.assert_close(
            factorized(linear, choice, decomposition=decomposition)(x),
            factorized(linear, choice, metric)(x),
            **EXACT,
        )


def test_the_layers_of_the_plan_are_replaced_and_no_other(tiny):
    x = torch.randn(2, 3, 8, 8)
    expected = tiny(x)
    factorize_(tiny, Plan({name: full(tiny.get_submodule(name), "svd") for name, _ in PLAN}))
    assert {name for name, module in tiny.named_modules() if is_factorized(module)} == set(
        PLAN.choices
    )
    torch.testing.assert_close(tiny(x), expected, **EXACT)


@pytest.mark.parametrize(
    ("name", "choice", "error", "message"),
    [
        ("conv9", Choice("svd", (2,)), PlanError, "no layer 'conv9'"),
        ("relu1", Choice("svd", (2,)), UnsupportedLayerError, "ReLU, a plain"),
        ("norm1", Choice("svd", (2,)), UnsupportedLayerError, "BatchNorm2d"),
        ("conv3", Choice("svd", (2000,)), RankError, "2000"),
        ("conv3", Choice("svd", (0,)), RankError, "0"),
    ],
)
def test_one_bad_choice_leaves_the_network_whole(tiny, name, choice, error, message):
    layers = dict(tiny.named_modules())
    with pytest.raises(error, match=message) as caught:
        factorize_(tiny, Plan({**PLAN.choices, name: choice}))
    assert caught.value.__notes__ == [f"in layer {name!r} with {choice}"]
    assert isinstance(caught.value, CompressError)
    assert dict(tiny.named_modules()) == layers


def test_moments_of_other_layers_are_no_reason_to_do_without(tiny):
    statistics = moments(tiny, [torch.randn(8, 3, 8, 8)], ["conv2"])
    with pytest.raises(PlanError, match="not for 'classify'"):
        factorize_(tiny, PLAN, statistics)
    assert not any(is_factorized(module) for module in tiny.modules())


def test_a_layer_is_factorized_once(tiny):
    factorize_(tiny, PLAN)
    with pytest.raises(UnsupportedLayerError, match="factorised already"):
        factorize_(tiny, PLAN)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (parametrizations.weight_norm(nn.Linear(4, 4)), "parametrisation"),
        (nn.LSTM(4, 4), "LSTM"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_layer_that_cannot_be_represented_is_refused(layer, message):
    with pytest.raises(UnsupportedLayerError, match=message):
        factorized(layer, Choice("svd", (2,)))


def test_weights_without_a_decomposition_are_an_error_of_ours():
    linear = nn.Linear(4, 4)
    linear.weight.data[0, 0] = torch.nan
    with pytest.raises(CompressError):
        factorized(linear, Choice("svd", (2,)))


def test_a_decomposition_that_does_not_converge_is_an_error_of_ours():
    class Stuck:
        def factors(self, ranks):
            return torch.linalg.inv(torch.zeros(2, 2))

    with pytest.raises(CompressError, match=r"svd does not converge: .*singular"):
        factorized(nn.Linear(4, 4), Choice("svd", (2,)), decomposition=Stuck())
