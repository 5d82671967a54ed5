import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.decompose.folds import balanced, divisors
from compress.decompose.hierarchical_tucker import HierarchicalTucker, tree_limits
from compress.decompose.svd import ChannelSvd
from compress.errors import RankError
from tests.strategies import SEEDS, normal, sampled_error, second_moment

EXACT = {"rtol": 0, "atol": 1e-9}
SIZE = (12, 18)  # outputs (3, 4), inputs (3, 6)
LIMITS = (12, 3, 4, 3, 6)
RANKS = st.tuples(*(st.integers(1, limit) for limit in LIMITS))


def product(factors):
    """The matrix (O, I) of the six factors."""
    in_1, in_2, reduce, expand, out_1, out_2 = (factor.numpy() for factor in factors)
    return torch.from_numpy(np.kron(out_1, out_2) @ expand @ reduce @ np.kron(in_1, in_2))


def samples_of(seed, decades=2.0):
    """Correlated, of different variances, more in one direction of each mode."""
    modes = torch.kron(normal(seed, 3, 3), normal(seed + 1, 6, 6)) + 0.3 * normal(seed + 2, 18, 18)
    return normal(seed + 3, 60, 18) * torch.logspace(0, -decades, 18).double() @ modes


@pytest.mark.parametrize("aware", [False, True])
def test_a_tree_is_found_again_at_its_ranks(aware):
    ranks = (4, 2, 3, 2, 3)
    factors = (
        normal(0, 2, 3),
        normal(1, 3, 6),
        normal(2, 4, 6),
        normal(3, 6, 4),
        normal(4, 3, 2),
        normal(5, 4, 3),
    )
    weight = product(factors)
    metric = second_moment(samples_of(6)) if aware else None
    found = HierarchicalTucker(weight, metric)
    torch.testing.assert_close(product(found.factors(ranks)), weight, **EXACT)
    assert [f.shape for f in found.factors(ranks)] == [f.shape for f in factors]
    assert found.error(ranks) < 1e-12
    for i in range(5):
        less = tuple(rank - (i == n) for n, rank in enumerate(ranks))
        assert found.error(less) > 1e-5


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS, ranks=RANKS)
def test_the_plain_error_is_within_what_the_cuts_lose(seed, ranks):
    """Grasedyck 2010, theorem 3.11: of the five cuts, each loses its singular values."""
    weight = normal(seed, *SIZE)
    modes, (root, *leaves) = weight.reshape(3, 4, 3, 6), ranks
    cut = torch.linalg.svdvals(weight)[root:].square().sum()
    for mode, rank in enumerate(leaves):
        unfolded = modes.movedim(mode, 0).flatten(1)
        cut = cut + torch.linalg.svdvals(unfolded)[rank:].square().sum()
    found = HierarchicalTucker(weight)
    error = (product(found.factors(ranks)) - weight).square().sum()
    assert float(error) <= float(cut) + 1e-9
    assert found.error(ranks) == pytest.approx(float(error / weight.square().sum()), abs=1e-12)


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS, ranks=RANKS)
def test_in_the_norm_of_the_data_it_is_never_worse_than_plain(seed, ranks):
    weight, samples = normal(seed, *SIZE), samples_of(seed + 1)
    plain = HierarchicalTucker(weight)
    aware = HierarchicalTucker(weight, second_moment(samples))
    errors = [sampled_error(weight, product(f.factors(ranks)), samples) for f in (plain, aware)]
    assert aware.error(ranks) == pytest.approx(errors[1], abs=1e-7)
    assert errors[1] <= errors[0] + 1e-9


def test_correlated_inputs_are_worth_half_of_the_error():
    weight, samples, ranks = normal(0, *SIZE), samples_of(1), (5, 3, 4, 2, 4)
    plain, aware = (
        sampled_error(weight, product(HierarchicalTucker(weight, m).factors(ranks)), samples)
        for m in (None, second_moment(samples))
    )
    assert aware < 0.5 * plain


@pytest.mark.parametrize(
    ("seed", "ranks", "least", "most"),
    [
        (7, (6, 2, 3, 1, 3), 0, 1e-4),  # frames of the data alone would be worse by 0.07
        (27, (3, 2, 2, 2, 2), 0.4, 1),
    ],
    ids=["plain", "data"],
)
def test_the_better_of_two_pairs_of_frames_is_taken(seed, ranks, least, most):
    """Against the frames of the plain norm, with the best of the root's rank between them."""
    weight, mix = normal(seed, *SIZE), normal(seed + 1, 18, 18)
    samples = normal(seed + 3, 60, 18) @ mix * torch.logspace(0, -2, 18).double()
    metric = second_moment(samples @ normal(seed + 2, 18, 18))
    in_1, in_2, _, _, out_1, out_2 = (f.numpy() for f in HierarchicalTucker(weight).factors(ranks))
    outs, ins = (torch.from_numpy(np.kron(*pair)) for pair in ((out_1, out_2), (in_1, in_2)))
    factor = torch.linalg.cholesky(ins @ metric @ ins.T)
    seen = torch.linalg.solve_triangular(factor, ins @ metric @ weight.T @ outs, upper=False)
    energy = (weight @ metric * weight).sum()
    kept = torch.linalg.svdvals(seen)[: ranks[0]].square().sum()
    gained = float(1 - kept / energy) - HierarchicalTucker(weight, metric).error(ranks)
    assert least - 1e-6 <= gained <= most


@pytest.mark.parametrize("aware", [False, True])
def test_the_error_falls_with_the_root_and_with_the_frames(aware):
    weight = normal(0, *SIZE)
    found = HierarchicalTucker(weight, second_moment(samples_of(1)) if aware else None)
    by_root = [found.error((root, 3, 4, 3, 6)) for root in range(1, 13)]
    by_frame = [found.error((12, 3, 4, 3, rank)) for rank in range(1, 7)]
    for errors in (by_root, by_frame):
        assert errors == sorted(errors, reverse=True)
        assert errors[0] > errors[-1] + 0.1


@pytest.mark.parametrize("mode", [0, 1])
def test_of_a_metric_that_is_a_product_a_frame_is_the_best_of_its_mode(mode):
    """Then a single cut is the truncated SVD of one unfolding of the whitened weight."""
    weight = normal(0, *SIZE)
    moments = [second_moment(normal(n, 9, n) * torch.logspace(0, -1, n)) for n in (3, 6)]
    metric = torch.kron(*moments)
    white = weight.reshape(12, 3, 6)
    for axis, moment in enumerate(moments):
        root = torch.linalg.cholesky(moment)
        white = torch.tensordot(white, root, ([axis + 1], [0])).movedim(-1, axis + 1)
    energies = torch.linalg.svdvals(white.movedim(mode + 1, 0).flatten(1)).square()
    ranks = (12, 3, 4, 2, 6) if mode == 0 else (12, 3, 4, 3, 2)
    expected = float(energies[2:].sum() / energies.sum())
    assert HierarchicalTucker(weight, metric).error(ranks) == pytest.approx(expected, rel=1e-4)


def test_with_whole_frames_it_is_the_svd():
    weight, metric = normal(0, *SIZE), second_moment(samples_of(1))
    for used in (None, metric):
        expected = ChannelSvd(weight, used).error((4,))
        assert HierarchicalTucker(weight, used).error((4, 3, 4, 3, 6)) == pytest.approx(
            expected, rel=1e-4
        )


def test_a_root_that_the_frames_cannot_fill_holds_zeros():
    weight = normal(0, *SIZE)
    factors = HierarchicalTucker(weight).factors((12, 1, 2, 3, 6))
    assert (factors[2].shape, factors[3].shape) == ((12, 18), (2, 12))
    assert not factors[2][2:].any()
    expected = product(HierarchicalTucker(weight).factors((2, 1, 2, 3, 6)))
    torch.testing.assert_close(product(factors), expected)


def test_ranks_above_the_modes_are_refused():
    assert tree_limits(*SIZE) == LIMITS
    with pytest.raises(RankError, match=r"\(4, 4, 4, 3, 6\) came"):
        HierarchicalTucker(normal(0, *SIZE)).factors((4, 4, 4, 3, 6))


@given(number=st.integers(1, 3000))
def test_factors_of_a_number_are_balanced(number):
    first, second = balanced(number)
    assert first <= second
    assert first * second == number
    between = [n for n in divisors(number) if first < n < second]
    assert not between
    assert list(divisors(number)) == [n for n in range(2, number + 1) if number % n == 0]
