import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.decompose import block_term
from compress.decompose.block_term import BlockTerm
from compress.decompose.tucker import Tucker2
from compress.equivalent import relative_error
from compress.errors import RankError
from tests.strategies import SEEDS, inputs_of, kernels, normal, second_moment

# Float64 round-off, and what the ridge of the fits may leave.
ROUND_OFF = 1e-9
RANKS = (3, 2, 3)


def product(factors, terms):
    in_factors, cores, out_factors = factors
    return torch.einsum(
        "gqi,gpqhw,ogp->oihw",
        in_factors.unflatten(0, (terms, -1)),
        cores.unflatten(0, (terms, -1)),
        out_factors.unflatten(1, (terms, -1)),
    )


def error_of(weight, ranks, used=None, metric=None):
    """In the norm of `metric`, of what was fitted in the norm of `used`."""
    found = product(BlockTerm(weight, used).factors(ranks), ranks[2])
    return relative_error(weight, found, metric)


@st.composite
def ranks_of(draw, weight):
    outputs, inputs = weight.shape[:2]
    limits = (outputs, inputs, min(outputs, inputs, 4))
    return tuple(draw(st.integers(1, limit)) for limit in limits)


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_in_the_norm_of_the_data_it_is_never_worse_than_the_plain_one(data):
    weight = data.draw(kernels())
    metric = second_moment(data.draw(inputs_of(weight)))
    ranks = data.draw(ranks_of(weight))
    fitted, plain = (error_of(weight, ranks, used, metric) for used in (metric, None))
    assert fitted <= plain + ROUND_OFF


@settings(deadline=None, max_examples=20)
@given(data=st.data(), in_the_norm_of_the_data=st.booleans())
def test_it_is_never_worse_than_one_of_its_terms(data, in_the_norm_of_the_data):
    weight = data.draw(kernels())
    metric = second_moment(data.draw(inputs_of(weight))) if in_the_norm_of_the_data else None
    ranks = data.draw(ranks_of(weight))
    single = torch.einsum("qi,pqhw,op->oihw", *Tucker2(weight, metric).factors(ranks[:2]))
    limit = relative_error(weight, single, metric)
    assert error_of(weight, ranks, metric, metric) <= limit + ROUND_OFF


@pytest.mark.parametrize("sweeps", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_the_error_falls_with_the_number_of_terms(monkeypatch, sweeps, seed):
    monkeypatch.setattr(block_term, "SWEEPS", sweeps)
    weight, metric = normal(seed, 8, 6, 3, 3), second_moment(normal(seed + 1, 99, 54))
    for used in (None, metric):
        errors = [error_of(weight, (3, 2, terms), used, used) for terms in (1, 2, 3, 4, 6)]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 0.7 * errors[0]


def test_no_sweep_raises_the_error(monkeypatch):
    weight, metric = normal(0, 8, 6, 3, 3), second_moment(normal(1, 60, 54) @ normal(2, 54, 54))
    for used in (None, metric):
        errors = []
        for sweeps in range(4):
            monkeypatch.setattr(block_term, "SWEEPS", sweeps)
            errors.append(error_of(weight, RANKS, used, used))
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 0.97 * errors[0]


def test_the_output_factors_are_the_best_of_all_terms_together():
    """What is left is uncorrelated with what enters the last factor."""
    weight, metric = normal(0, 8, 6, 3, 3), second_moment(normal(1, 99, 54))
    for used in (None, metric):
        in_factors, cores, out_factors = BlockTerm(weight, used).factors(RANKS)
        left = weight - product((in_factors, cores, out_factors), 3)
        entering = torch.einsum(
            "gqi,gpqhw->gpihw", in_factors.unflatten(0, (3, -1)), cores.unflatten(0, (3, -1))
        ).flatten(0, 1)
        moment = torch.eye(54).double() if used is None else used
        cross = left.flatten(1) @ moment @ entering.flatten(1).T
        assert cross.norm() < 1e-4 * weight.norm() * entering.norm()


def test_on_correlated_inputs_it_is_far_better_than_the_plain_one():
    weight, metric = normal(0, 8, 6, 3, 3), second_moment(normal(1, 99, 9) @ normal(2, 9, 54))
    fitted, plain = (error_of(weight, RANKS, used, metric) for used in (metric, None))
    assert fitted < 0.5 * plain


def test_terms_that_share_no_channels_are_found():
    """Two kernels of other channels each, in a basis that does not show it."""
    blocks = [normal(0, 2, 2, 3, 3), 0.5 * normal(1, 2, 2, 3, 3)]
    core = torch.zeros(4, 4, 3, 3, dtype=torch.float64)
    core[:2, :2], core[2:, 2:] = blocks
    out_factor, in_factor = (torch.linalg.qr(normal(seed, 8, 4))[0] for seed in (2, 3))
    weight = torch.einsum("pqhw,op,iq->oihw", core, out_factor, in_factor)
    assert error_of(weight, (2, 2, 2)) < 0.05
    assert error_of(weight, (2, 2, 1)) > 0.1


@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_full_rank_is_exact(data):
    weight = data.draw(kernels())
    samples = data.draw(inputs_of(weight))
    ranks = (*weight.shape[:2], min(*weight.shape[:2], 3))
    for metric in (None, second_moment(samples)):
        found = product(BlockTerm(weight, metric).factors(ranks), ranks[2])
        torch.testing.assert_close(found, weight, rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=10)
@given(seed=SEEDS)
def test_where_the_fit_to_the_data_loses_the_plain_terms_are_kept(seed):
    weight, metric = normal(seed, 4, 5, 2, 2), second_moment(normal(seed + 1, 30, 20))
    plain = error_of(weight, (2, 1, 3), None, metric)
    with pytest.MonkeyPatch.context() as patched:
        terms = BlockTerm._terms

        def spoiled(self, loss, ranks):
            found = terms(self, loss, ranks)
            if loss.metric is not None:
                found = [(a, torch.zeros_like(core), b) for a, core, b in found]
            return found

        patched.setattr(BlockTerm, "_terms", spoiled)
        assert error_of(weight, (2, 1, 3), metric, metric) <= plain + ROUND_OFF


def test_kernels_and_inputs_of_zeros_stay_finite():
    weight = normal(0, 4, 3, 2, 2)
    dead = second_moment(normal(1, 50, 12))
    dead[:4], dead[:, :4] = 0, 0  # nothing ever comes in through the first channel
    for kernel, metric in [
        (torch.zeros_like(weight), dead),
        (weight, torch.zeros(12, 12)),
        (weight, dead),
    ]:
        assert product(BlockTerm(kernel, metric).factors((2, 2, 2)), 2).isfinite().all()
    zeros = BlockTerm(torch.zeros_like(weight), dead).factors((2, 2, 2))
    assert not product(zeros, 2).any()


@pytest.mark.parametrize("ranks", [(0, 3, 1), (9, 3, 1), (4, 7, 1), (4, 3, 7), (4, 3)])
def test_a_rank_outside_its_bounds_is_refused(ranks):
    with pytest.raises(RankError, match=r"between 1 and \(8, 6, 6\)"):
        BlockTerm(normal(0, 8, 6, 3, 3)).factors(ranks)
