import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorly.decomposition import partial_tucker
from tensorly.tenalg import multi_mode_dot

from compress.decompose import tucker
from compress.decompose.linalg import unfold
from compress.decompose.reduction import Problem, Reduced
from compress.decompose.tucker import Tucker2
from compress.equivalent import relative_error
from compress.errors import RankError
from tests.strategies import SEEDS, inputs_of, kernels, normal, second_moment

# Float64 round-off, and what the ridge of the fits may leave.
ROUND_OFF = 1e-9


def product(decomposition, ranks):
    return torch.einsum("qi,pqhw,op->oihw", *decomposition.factors(ranks))


def ranks_of(weight):
    return st.tuples(st.integers(1, weight.shape[0]), st.integers(1, weight.shape[1]))


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_the_plain_error_stays_within_the_singular_values_cut(data):
    weight = data.draw(kernels())
    ranks = data.draw(ranks_of(weight))
    error = (product(Tucker2(weight), ranks) - weight).square().sum()
    cut = [
        float(torch.linalg.svdvals(unfold(weight, mode))[rank:].square().sum())
        for mode, rank in enumerate(ranks)
    ]
    assert max(cut) - ROUND_OFF <= error <= sum(cut) + ROUND_OFF


@settings(deadline=None, max_examples=10)
@given(seed=SEEDS, ranks=st.tuples(st.integers(1, 6), st.integers(1, 5)))
def test_the_plain_error_is_near_that_of_tensorly(seed, ranks):
    weight = normal(seed, 6, 5, 3, 3)
    (core, factors), _ = partial_tucker(weight.numpy(), rank=list(ranks), modes=[0, 1])
    theirs = weight - torch.from_numpy(multi_mode_dot(core, factors, modes=[0, 1]))
    ours = weight - product(Tucker2(weight), ranks)
    # The truncated HOSVD is within sqrt(2) of the optimum, which theirs iterates towards.
    assert ours.norm() <= 2**0.5 * theirs.norm() + ROUND_OFF
    assert ours.norm() >= theirs.norm() * 0.999 - ROUND_OFF


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_in_the_norm_of_the_data_it_is_never_worse_than_the_plain_one(data):
    weight = data.draw(kernels())
    metric = second_moment(data.draw(inputs_of(weight)))
    ranks = data.draw(ranks_of(weight))
    fitted, plain = (
        relative_error(weight, product(decomposition, ranks), metric)
        for decomposition in (Tucker2(weight, metric), Tucker2(weight))
    )
    assert fitted <= plain + ROUND_OFF


def test_on_correlated_inputs_it_is_far_better_than_the_plain_one():
    weight, metric = normal(0, 8, 6, 3, 3), second_moment(normal(1, 99, 9) @ normal(2, 9, 54))
    fitted, plain = (
        relative_error(weight, product(decomposition, (6, 4)), metric)
        for decomposition in (Tucker2(weight, metric), Tucker2(weight))
    )
    assert fitted < 0.5 * plain


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS, rank=st.integers(1, 6))
def test_with_every_input_kept_it_is_the_best_weight_of_its_output_rank(seed, rank):
    weight, samples = normal(seed, 6, 4, 2, 3), normal(seed + 1, 50, 24) @ normal(seed, 24, 24)
    metric = second_moment(samples)
    error = relative_error(weight, product(Tucker2(weight, metric), (rank, 4)), metric)
    values = torch.linalg.svdvals(samples @ weight.flatten(1).T).square()  # Eckart and Young
    assert error == pytest.approx(float(values[rank:].sum() / values.sum()), abs=ROUND_OFF)


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS, rank=st.integers(1, 4))
def test_where_inputs_and_places_are_uncorrelated_it_keeps_the_best_inputs(seed, rank):
    weight = normal(seed, 6, 4, 2, 2)
    inputs, places = second_moment(normal(seed + 1, 9, 4)), second_moment(normal(seed + 2, 9, 4))
    white = torch.einsum(
        "oik,ij,kl->ojl",
        weight.flatten(2),
        torch.linalg.cholesky(inputs),
        torch.linalg.cholesky(places),
    )
    values = torch.linalg.svdvals(unfold(white, 1)).square()
    metric = torch.kron(inputs, places)
    error = relative_error(weight, product(Tucker2(weight, metric), (6, rank)), metric)
    assert error == pytest.approx(float(values[rank:].sum() / values.sum()), abs=ROUND_OFF)


def test_where_inputs_and_places_are_entangled_the_plain_start_counts_too(monkeypatch):
    """For these values the start that is whitened by inputs and places loses."""
    weight, metric = normal(1232, 3, 4, 2, 2), second_moment(normal(1233, 10, 16))
    monkeypatch.setattr(tucker, "SWEEPS", 0)
    fitted, plain = (
        relative_error(weight, product(decomposition, (3, 1)), metric)
        for decomposition in (Tucker2(weight, metric), Tucker2(weight))
    )
    assert fitted <= plain + ROUND_OFF


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_full_rank_is_exact(data):
    weight = data.draw(kernels())
    samples = data.draw(inputs_of(weight))
    for metric in (None, second_moment(samples)):
        found = product(Tucker2(weight, metric), tuple(weight.shape[:2]))
        torch.testing.assert_close(found, weight, rtol=0, atol=1e-6)


def test_where_the_fit_to_the_data_loses_the_plain_one_is_kept(monkeypatch):
    weight, metric = normal(0, 8, 6, 3, 3), second_moment(normal(1, 99, 54))

    def spoiled(self, fit, sweeps, steps):
        return Reduced(fit.in_factor, torch.zeros_like(fit.core), fit.out_factor, 0.0)

    monkeypatch.setattr(Problem, "improved", spoiled)
    fitted, plain = (Tucker2(weight, used) for used in (metric, None))
    for found, expected in zip(fitted.factors((4, 3)), plain.factors((4, 3)), strict=True):
        assert torch.equal(found, expected)
    error = relative_error(weight, product(plain, (4, 3)), metric)
    assert fitted.error((4, 3)) == pytest.approx(error)


def test_no_sweep_raises_the_error(monkeypatch):
    weight, metric = normal(0, 8, 6, 3, 3), second_moment(normal(1, 60, 54) @ normal(2, 54, 54))
    errors = []
    for sweeps in range(4):
        monkeypatch.setattr(tucker, "SWEEPS", sweeps)
        errors.append(relative_error(weight, product(Tucker2(weight, metric), (4, 3)), metric))
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
        assert product(Tucker2(kernel, metric), (2, 2)).isfinite().all()
    assert not product(Tucker2(torch.zeros_like(weight), dead), (2, 2)).any()


@pytest.mark.parametrize("ranks", [(0, 3), (9, 3), (4, 7), (4,)])
def test_a_rank_outside_its_bounds_is_refused(ranks):
    with pytest.raises(RankError, match=r"between 1 and \(8, 6\)"):
        Tucker2(normal(0, 8, 6, 3, 3)).factors(ranks)
