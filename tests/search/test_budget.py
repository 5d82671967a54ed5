import math
from functools import cache
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from search.budget import (
    LossEstimate,
    binomial_upper,
    counted_upper,
    estimate,
    samples_needed,
    t_quantile,
    tango_upper,
    verdict,
)
from search.config import Budget
from search.errors import SampleError

TOP1 = Budget(max_loss=0.5, unit="points", metric="top1")
MSE = Budget(max_loss=0.1, unit="points", metric="mse")
Z = NormalDist().inv_cdf(0.95)


def paired(worse: int, better: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Answers of dense and of a candidate with these discordant samples."""
    dense, candidate = np.ones(samples), np.ones(samples)
    candidate[:worse] = 0
    dense[worse : worse + better] = 0
    return dense, candidate


@st.composite
def counts(draw):
    samples = draw(st.integers(1, 3000))
    worse = draw(st.integers(0, samples))
    return worse, draw(st.integers(0, samples - worse)), samples


# The estimate


def test_a_counted_loss_is_the_share_of_worse_less_the_share_of_better():
    found = estimate(TOP1, *paired(7, 3, 500))
    assert (found.worse, found.better, found.samples) == (7, 3, 500)
    assert found.value == 4 / 500
    assert found.upper == tango_upper(7, 3, 500, 0.95) > found.value


def test_a_real_valued_loss_is_what_the_candidate_has_more():
    dense, candidate = np.array([1.0, 2.0, 3.0]), np.array([1.5, 1.75, 3.0])
    found = estimate(MSE, dense, candidate)
    assert (found.worse, found.better, found.samples) == (1, 1, 3)
    assert found.value == pytest.approx(0.25 / 3)
    error = np.std([0.5, -0.25, 0.0], ddof=1) / math.sqrt(3)
    assert found.upper == pytest.approx(0.25 / 3 + 2.919986 * error, rel=1e-6)


def test_without_a_confidence_the_bound_is_the_point_estimate():
    point = Budget(max_loss=0.5, unit="points", confidence=None)
    found = estimate(point, *paired(7, 3, 500))
    assert found.upper == found.value == 4 / 500


def test_one_real_number_bounds_nothing():
    assert estimate(MSE, np.array([1.0]), np.array([1.1])).upper == math.inf


def test_an_answer_that_is_not_finite_fails_the_estimate_without_a_warning():
    found = estimate(MSE, np.array([0.0, math.inf, 0.0]), np.array([1.0, math.inf, 2.0]))
    assert math.isnan(found.value)
    assert math.isnan(found.upper)
    assert verdict(found, allowed=1.0, cost=0.5) == "budget_missed"


@pytest.mark.parametrize(
    ("dense", "candidate"),
    [
        (np.ones(3), np.ones(4)),
        (np.ones(0), np.ones(0)),
        (np.ones((2, 2)), np.ones((2, 2))),
        (np.ones(2), np.array([0.5, 1.0])),
    ],
)
def test_values_that_cannot_be_compared_are_refused(dense, candidate):
    with pytest.raises(SampleError, match=r"wanted|came"):
        estimate(TOP1, dense, candidate)


# Tango's bound


def test_without_discordant_pairs_tangos_bound_has_a_closed_form():
    for samples in (1, 50, 897, 10_000):
        assert tango_upper(0, 0, samples, 0.95) == pytest.approx(Z**2 / (samples + Z**2))


@settings(max_examples=60, deadline=None)
@given(given_counts=counts(), confidence=st.sampled_from([0.8, 0.95, 0.99]))
def test_at_the_bound_the_score_of_the_likeliest_nuisance_is_the_quantile(given_counts, confidence):
    """Tango's definition, with the likelihood maximised by search and not by his quadratic."""
    worse, better, samples = given_counts
    assume(worse > 0 and better > 0 and worse + better < samples)
    loss = tango_upper(worse, better, samples, confidence)

    def likelihood(share: float) -> float:
        rest = 1 - 2 * share - loss
        return (
            worse * math.log(share + loss)
            + better * math.log(share)
            + (samples - worse - better) * math.log(rest)
        )

    low, high = max(0.0, -loss), (1 - loss) / 2
    for _ in range(200):  # ternary search: the likelihood is concave
        one, other = low + (high - low) / 3, high - (high - low) / 3
        if likelihood(one) < likelihood(other):
            low = one
        else:
            high = other
    variance = samples * (2 * low + loss * (1 - loss))
    score = (worse - better - samples * loss) / math.sqrt(variance)
    # The search for a flat maximum finds it to the root of the precision.
    assert score == pytest.approx(-NormalDist().inv_cdf(confidence), rel=1e-4)


@settings(max_examples=100, deadline=None)
@given(given_counts=counts())
def test_the_bound_is_no_less_than_the_loss_and_no_more_than_all(given_counts):
    worse, better, samples = given_counts
    upper = counted_upper(worse, better, samples, 0.95)
    assert (worse - better) / samples <= upper <= 1


@settings(max_examples=100, deadline=None)
@given(given_counts=counts())
def test_one_more_worse_sample_raises_the_bound(given_counts):
    worse, better, samples = given_counts
    assume(worse + better < samples)
    one_more = counted_upper(worse + 1, better, samples, 0.95)
    assert one_more >= counted_upper(worse, better, samples, 0.95)
    assert one_more > counted_upper(worse, better, samples, 0.95) or one_more == 1


@settings(max_examples=100, deadline=None)
@given(given_counts=counts(), times=st.integers(2, 5))
def test_more_samples_with_the_same_shares_tighten_the_bound(given_counts, times):
    worse, better, samples = given_counts
    many = counted_upper(times * worse, times * better, times * samples, 0.95)
    assert many <= counted_upper(worse, better, samples, 0.95)


# The exact bound


@pytest.mark.parametrize(("count", "samples"), [(1, 10), (3, 40), (12, 60)])
def test_at_the_exact_bound_so_few_are_as_rare_as_the_confidence_says(count, samples):
    share = binomial_upper(count, samples, 0.95)
    rare = sum(
        math.comb(samples, k) * share**k * (1 - share) ** (samples - k) for k in range(count + 1)
    )
    assert rare == pytest.approx(0.05)


def test_the_exact_bound_of_nothing_and_of_all():
    assert binomial_upper(0, 200, 0.95) == pytest.approx(1 - 0.05 ** (1 / 200))
    assert binomial_upper(7, 7, 0.95) == 1.0


def test_a_loss_without_any_gain_is_held_to_the_exact_bound():
    assert counted_upper(0, 0, 540, 0.95) == binomial_upper(0, 540, 0.95) > 0.005
    assert tango_upper(0, 0, 540, 0.95) < 0.005


# Student's quantile


@given(probability=st.floats(0.51, 0.999))
def test_one_and_two_degrees_of_freedom_have_closed_forms(probability):
    p = probability
    assert t_quantile(p, 1) == pytest.approx(math.tan(math.pi * (p - 0.5)))
    assert t_quantile(p, 2) == pytest.approx((2 * p - 1) / math.sqrt(2 * p * (1 - p)))


@pytest.mark.parametrize(
    ("probability", "freedom", "published"),
    [
        (0.95, 3, 2.353363),
        (0.95, 4, 2.131847),
        (0.95, 5, 2.015048),
        (0.95, 10, 1.812461),
        (0.95, 30, 1.697261),
        (0.99, 7, 2.997952),
        (0.975, 120, 1.979930),
    ],
)
def test_the_quantile_is_the_one_of_the_published_tables(probability, freedom, published):
    assert t_quantile(probability, freedom) == pytest.approx(published, abs=1e-6)


def test_with_many_degrees_of_freedom_the_quantile_is_the_normal_one():
    assert t_quantile(0.95, 200_001) == pytest.approx(Z, rel=1e-5)


# The promise, by simulation


@cache
def is_met(worse: int, better: int, samples: int, allowed: float) -> bool:
    """Whether a promise counts as kept on these counts."""
    loss = estimate(TOP1, *paired(worse, better, samples))
    return verdict(loss, allowed, cost=0.5) == "budget_met"


@pytest.mark.parametrize(
    ("samples", "allowed", "better"),
    [
        (540, 0.005, 0.0),  # where Tango's bound alone is broken in 6.7 % of the cases
        (540, 0.005, 0.001),
        (540, 0.005, 0.01),
        (1500, 0.003, 0.0),
        (1500, 0.01, 0.005),
        (6000, 0.005, 0.01),
    ],
)
def test_a_broken_promise_is_seldom_taken_for_kept(samples, allowed, better):
    """A candidate that loses exactly what is allowed is the hardest to tell."""
    draws = 8000
    rng = np.random.default_rng(11)
    rest = 1 - allowed - 2 * better
    drawn = rng.multinomial(samples, [allowed + better, better, rest], size=draws)
    met = sum(is_met(int(w), int(b), samples, allowed) for w, b, _ in drawn)
    assert met / draws < 0.05 + 3.5 * math.sqrt(0.05 * 0.95 / draws)


@pytest.mark.parametrize("samples", [4, 12, 100])
def test_a_broken_promise_of_a_real_number_is_seldom_taken_for_kept(samples):
    draws = 4000
    rng = np.random.default_rng(12)
    dense = np.zeros(samples)
    met = sum(
        estimate(MSE, dense, rng.normal(0.1, 1.0, samples)).upper <= 0.1 for _ in range(draws)
    )
    tolerance = 3.5 * math.sqrt(0.05 * 0.95 / draws)
    assert abs(met / draws - 0.05) < tolerance  # exact for normal differences: not rarer either


# The verdict


def loss(value: float, upper: float) -> LossEstimate:
    return LossEstimate(value=value, upper=upper, samples=1000, worse=9, better=4)


def test_the_verdict_goes_by_the_bound_first_and_by_the_time_second():
    assert verdict(loss(0.002, 0.004), allowed=0.005, cost=0.6) == "budget_met"
    assert verdict(loss(0.002, 0.006), allowed=0.005, cost=0.6) == "budget_missed"
    assert verdict(loss(0.002, 0.004), allowed=0.005, cost=1.0) == "no_gain"
    assert verdict(loss(0.002, 0.004), allowed=0.005, cost=math.nan) == "no_gain"


def test_a_loss_of_just_what_is_allowed_is_within_in_spite_of_round_off():
    point = Budget(max_loss=0.7, unit="points", confidence=None)
    found, allowed = estimate(point, *paired(7, 0, 1000)), point.allowed(0.9)
    assert found.upper > allowed  # 0.7 / 100 and 7 / 1000 are different numbers
    assert found.violation(allowed) <= 0
    assert verdict(found, allowed, cost=0.5) == "budget_met"


def test_the_violation_is_what_lies_beyond():
    assert loss(0.0, 0.008).violation(0.005) == pytest.approx(0.003)
    assert loss(0.0, 0.004).violation(0.005) == pytest.approx(-0.001)
    assert math.isnan(loss(math.nan, math.nan).violation(0.005))


# The samples needed


@pytest.mark.parametrize("discordant", [0.0, 0.004, 0.05])
@pytest.mark.parametrize("max_loss", [0.2, 1.0])
def test_so_many_samples_are_enough_and_one_less_is_not(max_loss, discordant):
    budget = Budget(max_loss=max_loss, unit="points")
    needed = samples_needed(budget, 0.98, n_now=20, discordant_share=discordant)

    def upper(samples: int) -> float:
        half = samples * discordant / 2
        return counted_upper(half, half, samples, 0.95)

    assert needed is not None
    assert upper(needed) <= max_loss / 100 < upper(needed - 1)


def test_for_agreement_the_number_follows_from_the_rule_of_three():
    budget = Budget(max_loss=0.5, unit="points", metric="agreement")
    wanted = math.ceil(math.log(0.05) / math.log(1 - 0.005))
    assert samples_needed(budget, 1.0, n_now=100, discordant_share=0.02) == wanted


def test_samples_that_are_enough_are_all_that_is_needed():
    assert samples_needed(TOP1, 0.9, n_now=50_000, discordant_share=0.01) == 50_000
    point = Budget(max_loss=0.5, unit="points", confidence=None)
    assert samples_needed(point, 0.9, n_now=10, discordant_share=0.01) == 10


def test_no_number_of_samples_shows_that_nothing_is_lost():
    nothing = Budget(max_loss=0, unit="points")
    assert samples_needed(nothing, 0.9, n_now=10, discordant_share=0.0) is None
    assert samples_needed(MSE, 0.9, n_now=10, discordant_share=0.0) is None
