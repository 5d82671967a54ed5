import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.decompose import spatial_svd
from compress.decompose.linalg import roots
from compress.decompose.spatial_svd import SpatialSvd
from compress.equivalent import relative_error
from compress.errors import RankError
from tests.strategies import SEEDS, inputs_of, kernels, normal, second_moment

# Float64 round-off, and what the ridge of the fits may leave.
ROUND_OFF = 1e-9


def product(svd, rank):
    return torch.einsum("rih,orw->oihw", *svd.factors((rank,)))


def full_rank(weight):
    outputs, inputs, height, width = weight.shape
    return min(inputs * height, outputs * width)


@settings(deadline=None, max_examples=30)
@given(weight=kernels())
def test_the_plain_error_is_that_of_the_singular_values_cut(weight):
    _, inputs, height, _ = weight.shape
    matrix = torch.stack(
        [weight[:, i, h].flatten() for i in range(inputs) for h in range(height)]
    )  # a row for each input channel and row of the kernel
    values, svd = torch.linalg.svdvals(matrix).square(), SpatialSvd(weight)
    for rank in range(1, full_rank(weight) + 1):
        error = (product(svd, rank) - weight).square().sum()
        assert float(error) == pytest.approx(float(values[rank:].sum()), abs=ROUND_OFF)


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_in_the_norm_of_the_data_it_is_never_worse_than_the_plain_one(data):
    weight = data.draw(kernels())
    metric = second_moment(data.draw(inputs_of(weight)))
    rank = data.draw(st.integers(1, full_rank(weight)))
    fitted, plain = (
        relative_error(weight, product(svd, rank), metric)
        for svd in (SpatialSvd(weight, metric), SpatialSvd(weight))
    )
    assert fitted <= plain + ROUND_OFF


def test_on_correlated_inputs_it_is_far_better_than_the_plain_one():
    weight, metric = normal(0, 8, 6, 3, 3), second_moment(normal(1, 99, 9) @ normal(2, 9, 54))
    fitted, plain = (
        relative_error(weight, product(svd, 6), metric)
        for svd in (SpatialSvd(weight, metric), SpatialSvd(weight))
    )
    assert fitted < 0.5 * plain


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS, rank=st.integers(1, 8))
def test_where_rows_and_columns_are_uncorrelated_it_is_the_known_optimum(seed, rank):
    weight = normal(seed, 5, 4, 3, 2)
    rows, columns = second_moment(normal(seed + 1, 40, 12)), second_moment(normal(seed + 2, 9, 2))
    white = torch.einsum(
        "jk,okv,vw->jow", roots(rows)[0], weight.reshape(5, 12, 2), roots(columns)[0]
    )
    values = torch.linalg.svdvals(white.reshape(12, 10)).square()
    metric = torch.kron(rows, columns)
    error = relative_error(weight, product(SpatialSvd(weight, metric), rank), metric)
    assert error == pytest.approx(float(values[rank:].sum() / values.sum()), abs=ROUND_OFF)


def test_where_rows_and_columns_are_entangled_the_plain_start_counts_too(monkeypatch):
    """For these values the start that is whitened by rows and columns loses by far."""
    weight, metric = normal(664, 2, 3, 2, 2), second_moment(normal(665, 5, 12))
    monkeypatch.setattr(spatial_svd, "SWEEPS", 0)
    fitted, plain = (
        relative_error(weight, product(svd, 1), metric)
        for svd in (SpatialSvd(weight, metric), SpatialSvd(weight))
    )
    assert fitted <= plain + ROUND_OFF


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS, rank=st.integers(1, 5))
def test_the_horizontal_kernel_is_the_best_for_the_vertical_one(seed, rank):
    weight, samples = normal(seed, 4, 3, 3, 2), normal(seed + 1, 60, 18)
    vertical, horizontal = SpatialSvd(weight, second_moment(samples)).factors((rank,))
    between = torch.einsum("rih,nihw->nrw", vertical, samples.reshape(-1, 3, 3, 2)).flatten(1)
    outputs = samples @ weight.flatten(1).T
    best = torch.linalg.lstsq(between, outputs).solution
    torch.testing.assert_close(horizontal.flatten(1).T, best, rtol=0, atol=1e-3)


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_full_rank_is_exact(data):
    weight = data.draw(kernels())
    samples = data.draw(inputs_of(weight))
    for metric in (None, second_moment(samples)):
        found = product(SpatialSvd(weight, metric), full_rank(weight))
        torch.testing.assert_close(found, weight, rtol=0, atol=1e-6)


def test_no_sweep_raises_the_error(monkeypatch):
    weight, metric = normal(0, 8, 6, 3, 3), second_moment(normal(1, 60, 54) @ normal(2, 54, 54))
    errors = []
    for sweeps in range(5):
        monkeypatch.setattr(spatial_svd, "SWEEPS", sweeps)
        errors.append(relative_error(weight, product(SpatialSvd(weight, metric), 5), metric))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.99 * errors[0]


def test_kernels_and_inputs_of_zeros_stay_finite():
    weight = normal(0, 4, 3, 2, 2)
    dead = second_moment(normal(1, 50, 12))
    dead[:4], dead[:, :4] = 0, 0  # nothing ever comes in through the first channel
    for kernel, metric in [
        (torch.zeros_like(weight), dead),
        (weight, torch.zeros(12, 12)),
        (weight, dead),
    ]:
        assert product(SpatialSvd(kernel, metric), 2).isfinite().all()
    assert not product(SpatialSvd(torch.zeros_like(weight), dead), 2).any()


@pytest.mark.parametrize("rank", [0, 7])
def test_a_rank_outside_its_bounds_is_refused(rank):
    with pytest.raises(RankError, match=r"between 1 and \(6,\)"):
        SpatialSvd(normal(0, 3, 4, 3, 2)).factors((rank,))
