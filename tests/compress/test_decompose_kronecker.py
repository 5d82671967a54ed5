import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.decompose.kronecker import KroneckerSum, kronecker_limits
from compress.decompose.spatial_svd import SpatialSvd
from compress.decompose.svd import ChannelSvd
from compress.errors import RankError
from tests.strategies import SEEDS, normal, sampled_error, second_moment

# What float64 leaves of an exact decomposition.
EXACT = {"rtol": 0, "atol": 1e-9}
SIZES = {"conv": (8, 6, 3, 2), "linear": (12, 18)}
KIND = pytest.mark.parametrize("kind", SIZES)


def product(factors, ranks, size):
    """The weight that the factors stand for: a sum of numpy.kron, place by place."""
    terms, slices_out, slices_in = ranks
    _, inputs, *places = size
    inner, outer = (factor.numpy() for factor in factors)
    inner = inner.reshape(terms, slices_out, inputs // slices_in, *places)
    outer = outer.reshape(-1, slices_in, terms)
    weight = np.zeros(size)
    for k in range(terms):
        for place in np.ndindex(*places):
            weight[(..., *place)] += np.kron(inner[(k, ..., *place)], outer[..., k])
    return torch.from_numpy(weight)


def random_terms(ranks, size, seed=0):
    """Factors of independent normal values."""
    terms, slices_out, slices_in = ranks
    outputs, inputs, *places = size
    inner = normal(seed, slices_out * terms, inputs // slices_in, *places)
    return inner, normal(seed + 1, outputs // slices_out, terms * slices_in)


def samples_of(weight, seed, count=None):
    size = weight[0].numel()
    return normal(seed, count or 3 * size, size) @ normal(seed + 1, size, size)


@KIND
@pytest.mark.parametrize("slices", [(2, 3), (4, 2), (1, 6), (2, 1), (4, 6)])
@pytest.mark.parametrize("aware", [False, True])
def test_a_sum_of_products_is_found_again_and_no_fewer_terms_do(kind, slices, aware):
    size, ranks = SIZES[kind], (3, *slices)
    weight = product(random_terms(ranks, size), ranks, size)
    metric = second_moment(samples_of(weight, 7)) if aware else None
    found = KroneckerSum(weight, metric)
    torch.testing.assert_close(product(found.factors(ranks), ranks, size), weight, **EXACT)
    assert found.error(ranks) < 1e-12
    assert found.error((2, *slices)) > 1e-5


@KIND
def test_the_plain_error_is_what_the_rearranged_weight_loses(kind):
    """Van Loan and Pitsianis, section 2: each block of the weight is a row, at each place."""
    size, (_, out, into) = SIZES[kind], (0, 2, 3)
    weight = normal(0, *size)
    blocks = [
        weight[o : o + size[0] // out, i : i + into].movedim((0, 1), (-2, -1))
        for o in range(0, size[0], size[0] // out)
        for i in range(0, size[1], into)
    ]  # (*kernel, o, s)
    rows = torch.cat([block.reshape(-1, size[0] // out * into) for block in blocks])
    energies = torch.linalg.svdvals(rows).square()
    for terms in (1, 2, 5, 9):
        expected = float(energies[terms:].sum() / energies.sum())
        found = KroneckerSum(weight)
        factors = found.factors((terms, out, into))
        error = (product(factors, (terms, out, into), size) - weight).square().sum()
        assert float(error / weight.square().sum()) == pytest.approx(expected)
        assert found.error((terms, out, into)) == pytest.approx(expected)


@KIND
@settings(deadline=None, max_examples=20)
@given(seed=SEEDS, terms=st.integers(1, 9), slices=st.sampled_from([(1, 2), (2, 3), (4, 1)]))
def test_in_the_norm_of_the_data_it_is_never_worse_than_plain(kind, seed, terms, slices):
    size, ranks = SIZES[kind], (terms, *slices)
    weight = normal(seed, *size)
    samples = samples_of(weight, seed + 1)
    fits = {"plain": None, "aware": second_moment(samples)}
    errors = {}
    for name, metric in fits.items():
        found = KroneckerSum(weight, metric)
        rebuilt = product(found.factors(ranks), ranks, size)
        errors[name] = sampled_error(weight, rebuilt, samples)
    assert found.error(ranks) == pytest.approx(errors["aware"], abs=1e-9)
    assert errors["aware"] <= errors["plain"] + 1e-9


@KIND
def test_correlated_inputs_are_worth_a_fifth_of_the_error(kind):
    weight = normal(0, *SIZES[kind])
    samples, ranks = samples_of(weight, 1), (4, 2, 2)
    plain, aware = (
        sampled_error(
            weight, product(KroneckerSum(weight, m).factors(ranks), ranks, weight.shape), samples
        )
        for m in (None, second_moment(samples))
    )
    assert aware < 0.8 * plain


@KIND
@pytest.mark.parametrize("aware", [False, True])
def test_the_error_falls_with_every_term(kind, aware):
    weight = normal(0, *SIZES[kind])
    found = KroneckerSum(weight, second_moment(samples_of(weight, 1)) if aware else None)
    errors = [found.error((terms, 2, 2)) for terms in range(1, 10)]
    assert errors == sorted(errors, reverse=True)


def test_one_slice_is_a_channel_svd_and_slices_of_inputs_alone_a_spatial_one():
    weight = normal(0, 8, 6, 1, 2)
    sums = KroneckerSum(weight)
    assert sums.error((3, 1, 1)) == pytest.approx(ChannelSvd(weight).error((3,)))
    matrix = normal(1, 12, 18)
    spatial = SpatialSvd(matrix.reshape(12, 6, 1, 3))  # inputs (6, 3): slices are interleaved
    assert KroneckerSum(matrix).error((4, 1, 3)) == pytest.approx(spatial.error((4,)))


@KIND
def test_terms_that_nothing_is_left_for_hold_zeros(kind):
    size = SIZES[kind]
    weight = normal(0, *size)
    most, outputs, inputs = kronecker_limits(size)
    ranks = (most, outputs, 1)  # of A (1, 1): one term holds everything
    inner, outer = KroneckerSum(weight).factors(ranks)
    torch.testing.assert_close(product((inner, outer), ranks, size), weight, **EXACT)
    assert int(outer.count_nonzero()) == 1
    assert int((inner.flatten(1).abs().sum(1) > 0).sum()) == outputs
    assert inputs == size[1]


def test_slices_that_hold_little_leave_terms_open():
    size, ranks = (2, 6), (3, 1, 6)  # B (1, 1): one term holds everything
    weight = normal(0, *size)
    factors = KroneckerSum(weight).factors(ranks)
    torch.testing.assert_close(product(factors, ranks, size), weight, **EXACT)
    assert [factor.shape for factor in factors] == [(3, 1), (2, 18)]
    assert int(factors[0].count_nonzero()) == 1


@pytest.mark.parametrize(
    ("ranks", "told"),
    [
        ((2, 5, 2), "5 slices of 12 features came; a divisor of 12 was wanted"),
        ((2, 2, 4), "4 slices of 18 features came; a divisor of 18 was wanted"),
        ((15, 2, 2), r"\(15, 2, 2\) came; integers between 1 and \(14, 12, 18\)"),
        ((2, 2), r"\(2, 2\) came"),
    ],
)
def test_ranks_that_cannot_be_are_refused_with_what_was_wanted(ranks, told):
    with pytest.raises(RankError, match=told):
        KroneckerSum(normal(0, 12, 18)).factors(ranks)
