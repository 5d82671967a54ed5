from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.equivalent import dense_weight, relative_error
from compress.errors import CompressError
from compress.kernels import kernel_of, kernel_size, weight_size
from compress.methods.groups import group_shape, groups_of
from compress.methods.registry import METHODS
from compress.metric import Metric, MetricError, ModeMoments
from compress.shape import ConvShape, LinearShape, TransposedShape
from tests.strategies import SEEDS, inputs_of, kernels, normal, second_moment

CONV = ConvShape(in_channels=5, out_channels=6, kernel_size=(3, 2))
SHAPES = {
    "linear": LinearShape(in_features=7, out_features=6),
    "one axis": ConvShape(in_channels=5, out_channels=6, kernel_size=(3,)),
    "two axes": CONV,
    "three axes": ConvShape(in_channels=4, out_channels=5, kernel_size=(2, 3, 2)),
    "one column": ConvShape(in_channels=5, out_channels=6, kernel_size=(3, 1)),
    "grouped": replace(CONV, in_channels=10, out_channels=12, groups=2),
    "transposed": TransposedShape(in_channels=5, out_channels=6, kernel_size=(3, 2)),
    "transposed, grouped": TransposedShape(
        in_channels=10, out_channels=12, kernel_size=(3, 2), groups=2
    ),
}
CASES = [
    pytest.param(method, shape, id=f"{method} {kind}")
    for kind, shape in SHAPES.items()
    for method in METHODS
    if METHODS[method].obstacle(group_shape(shape)) is None
]


def moments_of(seed, groups, size):
    """Positive definite (n, n), or (G, n, n), of variances that differ by a hundred."""
    falling = torch.logspace(0, -1, size, dtype=torch.float64)
    each = [second_moment(normal(seed + g, 3 * size, size) * falling) for g in range(groups)]
    return each[0] if groups == 1 else torch.stack(each)


def metrics_of(shape):
    """Every kind of metric that a layer of this shape may have."""
    groups, (outputs, *size) = groups_of(shape), kernel_size(shape)
    second = moments_of(0, groups, torch.Size(size).numel())
    by_mode = ModeMoments.of(second, size)
    gradients = moments_of(50, groups, outputs // groups)
    diagonal = by_mode.channels.diagonal(dim1=-2, dim2=-1)
    return {
        "two-sided": Metric(second, gradients),
        "outputs": Metric(None, gradients),
        "modes": Metric(by_mode),
        "modes and outputs": Metric(by_mode, gradients),
        "diagonals": Metric(
            replace(by_mode, channels=diagonal), gradients.diagonal(dim1=-2, dim2=-1)
        ),
    }


def whole(metric, size):
    """(D, D) of the inputs of a metric without groups, by its definition."""
    if not isinstance(metric.inputs, ModeMoments):
        return (
            torch.eye(torch.Size(size).numel()).double() if metric.inputs is None else metric.inputs
        )
    product = metric.inputs.channels
    product = torch.diag(product) if product.ndim == 1 else product
    for axis in metric.inputs.axes:
        product = torch.kron(product, axis)
    return product


def error_by_definition(kernel, approximation, metric, groups):
    """tr(G D Sigma D^T) over that of the kernel itself."""
    energies = [0.0, 0.0]
    for part, exact, found in zip(
        metric.split(groups), kernel.chunk(groups), approximation.chunk(groups), strict=True
    ):
        sigma, outputs = whole(part, kernel.shape[1:]), part.outputs
        if outputs is None:
            outputs = torch.eye(len(exact)).double()
        outputs = torch.diag(outputs) if outputs.ndim == 1 else outputs
        for i, change in enumerate((exact - found, exact)):
            rows = change.flatten(1)
            energies[i] += float((outputs @ rows @ sigma * rows).sum())
    return energies[0] / energies[1]


def found_by(decomposition, ranks):
    stages = decomposition.method.stages(decomposition.shape, ranks)
    return dense_weight(decomposition.shape, stages, decomposition.factors(ranks))


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_full_ranks_come_back_from_every_coordinates(name, shape):
    method, weight = METHODS[name], normal(3, *weight_size(shape))
    ranks = method.limits(shape)
    if name == "block_term":
        ranks = (*ranks[:2], 1)
    for metric in metrics_of(shape).values():
        found = found_by(method.decompose(shape, weight, metric), ranks)
        # cp is exact at this rank but for the ridge of its least squares
        torch.testing.assert_close(found, kernel_of(shape, weight), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_an_error_is_that_of_the_factors_by_definition_and_less_than_of_the_plain_ones(name, shape):
    method, weight = METHODS[name], normal(3, *weight_size(shape))
    ranks = tuple(min(4, max(1, limit // 2)) for limit in method.limits(shape))
    if name == "block_term":
        ranks = (2, 2, 2)
    kernel, groups = kernel_of(shape, weight), groups_of(shape)
    plain = found_by(method.decompose(shape, weight, None), ranks)
    for metric in metrics_of(shape).values():
        decomposition = method.decompose(shape, weight, metric)
        found = found_by(decomposition, ranks)
        expected = error_by_definition(kernel, found, metric, groups)
        error = MetricError(kernel, metric, groups)
        # the roots are of moments with a ridge
        assert error.of(found) == pytest.approx(expected, rel=1e-3, abs=1e-9)
        assert error.of(found) < error.of(plain) + 1e-9
        known = decomposition.error(ranks)
        assert known is None or known == pytest.approx(expected, rel=1e-3, abs=1e-7)


@settings(deadline=None)
@given(st.data())
def test_svd_is_the_truncated_one_between_the_roots_of_both_sides(data):
    weight = data.draw(kernels())
    sigma = second_moment(data.draw(inputs_of(weight)))
    gradients = moments_of(data.draw(SEEDS), 1, len(weight))
    shape = ConvShape(
        in_channels=weight.shape[1], out_channels=len(weight), kernel_size=tuple(weight.shape[2:])
    )
    decomposition = METHODS["svd"].decompose(shape, weight, Metric(sigma, gradients))
    values, vectors = torch.linalg.eigh(sigma)
    root = torch.linalg.cholesky(gradients)
    wanted = torch.linalg.svdvals(
        root.T @ weight.flatten(1) @ (vectors * values.clamp_min(0).sqrt())
    ).square()
    for rank in range(1, 1 + METHODS["svd"].limits(shape)[0]):
        share = float(wanted[rank:].sum() / wanted.sum().clamp_min(1e-300))
        assert decomposition.error((rank,)) == pytest.approx(share, rel=1e-3, abs=1e-6)


def test_outputs_that_count_alike_change_nothing():
    weight, sigma = normal(0, 6, 5, 3, 2), moments_of(0, 1, 30)
    for name in ("svd", "tucker2", "spatial_svd"):
        ranks = (3, 2) if name == "tucker2" else (3,)
        one, two = (
            found_by(METHODS[name].decompose(CONV, weight, metric), ranks)
            for metric in (sigma, Metric(sigma, 7 * torch.eye(6).double()))
        )
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_a_metric_of_inputs_alone_is_the_tensor_itself():
    weight, sigma = normal(0, 6, 5, 3, 2), moments_of(0, 1, 30)
    one, other = (METHODS["tucker2"].decompose(CONV, weight, m) for m in (sigma, Metric(sigma)))
    for key, factor in one.factors((3, 2)).items():
        assert torch.equal(factor, other.factors((3, 2))[key])
    found = found_by(one, (3, 2))
    assert MetricError(weight, sigma).of(found) == relative_error(weight, found, sigma)


def test_a_moment_of_zeros_is_the_plain_norm():
    weight = normal(0, 6, 5, 3, 2)
    zeros = Metric(ModeMoments.of(torch.zeros(30, 30).double(), (5, 3, 2)), torch.zeros(6, 6))
    found, plain = (METHODS["svd"].decompose(CONV, weight, m).factors((3,)) for m in (zeros, None))
    assert all(torch.equal(found[key], plain[key]) for key in plain)


def test_an_output_that_the_loss_never_feels_stays_finite():
    gradients = moments_of(0, 1, 6)
    gradients[2], gradients[:, 2] = 0, 0
    weight = normal(0, 6, 5, 3, 2)
    metric = Metric(moments_of(0, 1, 30), gradients)
    for name in ("svd", "tucker2", "cp3"):
        ranks = (3, 2) if name == "tucker2" else (3,)
        found = found_by(METHODS[name].decompose(CONV, weight, metric), ranks)
        assert found.abs().max() < 1e4


def test_a_product_over_modes_is_found_again():
    """The partial traces of a Kronecker product are its factors."""
    channels, rows, columns = (moments_of(seed, 1, n) for seed, n in enumerate((4, 3, 2)))
    found = ModeMoments.of(torch.kron(torch.kron(channels, rows), columns), (4, 3, 2))
    torch.testing.assert_close(found.axes, (rows / rows.trace(), columns / columns.trace()))
    torch.testing.assert_close(found.channels, channels * rows.trace() * columns.trace())


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (Metric(None, torch.eye(5)), r"\(5, 5\) came for mode 0 .* \(6, 6\) was wanted"),
        (Metric(ModeMoments(torch.eye(6))), r"\(6, 6\) came for mode 1 .* \(5, 5\) was wanted"),
        (Metric(ModeMoments(torch.eye(5), (torch.eye(3),) * 2)), r"\(3, 3\) came for mode 3"),
        (Metric(ModeMoments(torch.eye(5), (torch.eye(3), *[torch.eye(2)] * 2))), "came for mode 4"),
        (Metric(None, torch.full((6,), torch.nan)), "mode 0 holds NaN"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused(metric, message):
    with pytest.raises(CompressError, match=message):
        METHODS["svd"].decompose(CONV, normal(0, 6, 5, 3, 2), metric)


@pytest.mark.parametrize("part", ["inputs", "outputs"])
def test_a_metric_of_other_groups_is_refused(part):
    shape = SHAPES["grouped"]
    metric = replace(metrics_of(shape)["modes and outputs"], **{part: METRIC_OF_ONE[part]})
    with pytest.raises(CompressError, match="for each of the 2 groups was wanted"):
        METHODS["svd"].decompose(shape, normal(0, *weight_size(shape)), metric)


METRIC_OF_ONE = {"inputs": ModeMoments(torch.eye(5)), "outputs": torch.eye(6)}
