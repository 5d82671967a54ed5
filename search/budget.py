"""Was the promise kept? The paired loss of a candidate, its upper bound, and the verdict."""

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from search.bisection import crossing
from search.config import COUNTED, Budget
from search.errors import SampleError

PerSample = NDArray[np.float64]
"""(N,) the metric of each sample: 1 for right and 0 for wrong where counted, else the value."""

Verdict = Literal["budget_met", "budget_missed", "no_gain"]

# Round-off of a difference of shares: 0.003 - 0.3 / 100 is not 0.
ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class LossEstimate:
    """What was lost, in the metric's own unit (a share where counted); above 0 is worse."""

    value: float
    """Mean of the paired differences."""
    upper: float
    """One-sided upper bound at the budget's confidence; `value` where it asks for none."""
    samples: int
    worse: int
    """Samples that dense has better than the candidate."""
    better: int

    def violation(self, allowed: float) -> float:
        """How far the bound lies beyond the loss that is allowed; at most 0 within it."""
        beyond = self.upper - allowed
        return min(beyond, 0.0) if beyond <= ROUNDING else beyond


def estimate(budget: Budget, dense: PerSample, candidate: PerSample) -> LossEstimate:
    """The paired loss of a candidate against dense, on the same samples in the same order.

    The upper bound is Tango's where the metric is counted and Student's where it is a real
    number. Where no sample got better, Tango's bound is broken in up to 6.7 % of the cases
    instead of 5 %; there the exact bound of Clopper and Pearson (1934) holds, since the loss is
    at most the share of samples that got worse.

    Raises:
        SampleError: different numbers of samples, none at all, or values other than 0 and 1 of a
            counted metric.
    """
    counted = budget.metric in COUNTED
    _check(dense, candidate, counted)
    with np.errstate(invalid="ignore"):  # inf - inf of a network gone astray is NaN, and told
        lost = dense - candidate if counted else candidate - dense
        mean = float(lost.mean())
    samples, worse, better = len(lost), int((lost > 0).sum()), int((lost < 0).sum())
    value = (worse - better) / samples if counted else mean
    if budget.confidence is None:
        upper = value
    elif counted:
        upper = counted_upper(worse, better, samples, budget.confidence)
    else:
        upper = mean_upper(lost, budget.confidence)
    return LossEstimate(value=value, upper=upper, samples=samples, worse=worse, better=better)


def verdict(loss: LossEstimate, allowed: float, cost: float) -> Verdict:
    """What the numbers come to.

    Args:
        loss: on samples that nothing was chosen by.
        allowed: `Budget.allowed` of the dense network on the same samples.
        cost: as in `Costs`; at the upper end of its time's interval to be sure of a gain.
    """
    if not loss.violation(allowed) <= 0:
        return "budget_missed"
    return "budget_met" if cost < 1 else "no_gain"


def samples_needed(
    budget: Budget, dense_value: float, n_now: int, discordant_share: float
) -> int | None:
    """The least number of samples, from `n_now` on, that could show that the promise is kept.

    Supposes a candidate that loses nothing, yet differs from dense on `discordant_share` of the
    samples, half for the better; for agreement, where each difference is a loss, on none.

    Returns:
        None where no number would do (a budget of 0), or none can be told from counts (a metric
        that is a real number).
    """
    allowed = budget.allowed(dense_value)
    confidence = budget.confidence
    if confidence is None:
        return n_now
    if budget.metric not in COUNTED or allowed <= 0:
        return None
    half = 0.0 if budget.metric == "agreement" else discordant_share / 2

    def is_enough(samples: int) -> bool:
        return counted_upper(half * samples, half * samples, samples, confidence) <= allowed

    high = max(1, n_now)
    if is_enough(high):
        return high
    while not is_enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def counted_upper(worse: float, better: float, samples: int, confidence: float) -> float:
    """Upper bound of a counted metric's loss: Tango's, and the exact one if nothing got better."""
    upper = tango_upper(worse, better, samples, confidence)
    return upper if better > 0 else max(upper, binomial_upper(worse, samples, confidence))


def tango_upper(worse: float, better: float, samples: int, confidence: float) -> float:
    """Upper score bound of a difference of paired proportions.

    Tango, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design" (1998). With no discordant pair it is z^2 / (samples + z^2).
    """
    z = NormalDist().inv_cdf(confidence)

    def score(loss: float) -> float:
        a = 2 * samples  # the quadratic whose root is the constrained share of better samples
        b = -worse - better + (2 * samples - worse + better) * loss
        c = -better * loss * (1 - loss)
        share = max(0.0, (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a))
        variance = samples * (2 * share + loss * (1 - loss))
        return samples * loss - (worse - better) - z * math.sqrt(max(0.0, variance))

    return crossing(score, (worse - better) / samples, 1.0)


def binomial_upper(count: float, samples: int, confidence: float) -> float:
    """Clopper and Pearson's upper bound of a proportion."""
    if count == samples:
        return 1.0
    steps = np.arange(1, int(count) + 1)
    coefficients = np.concatenate(([0.0], np.cumsum(np.log((samples + 1 - steps) / steps))))
    counts = np.arange(int(count) + 1)

    def excess(share: float) -> float:
        logs = coefficients + counts * math.log(share) + (samples - counts) * math.log1p(-share)
        return 1 - confidence - float(np.exp(logs).sum())

    return crossing(excess, max(count / samples, 1e-300), 1 - 1e-16)


def mean_upper(differences: PerSample, confidence: float) -> float:
    """Student's upper bound of a mean; infinite for a single sample, NaN if one is not finite."""
    samples = len(differences)
    if not np.isfinite(differences).all():
        return math.nan
    if samples == 1:
        return math.inf
    error = float(differences.std(ddof=1)) / math.sqrt(samples)
    return float(differences.mean()) + t_quantile(confidence, samples - 1) * error


@lru_cache(maxsize=256)
def t_quantile(probability: float, freedom: int) -> float:
    """The quantile above 1/2 of Student's distribution with a whole number of degrees."""
    high = 1.0
    while _t_distribution(high, freedom) < probability:
        high *= 2
    return crossing(lambda t: _t_distribution(t, freedom) - probability, 0.0, high)


def _t_distribution(t: float, freedom: int) -> float:
    """P(T <= t) for t >= 0: the finite series of Abramowitz and Stegun 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    k = np.arange(1, (freedom + 1) // 2 if freedom % 2 == 0 else (freedom - 1) // 2)
    ratios = (2 * k - 1) / (2 * k) if freedom % 2 == 0 else 2 * k / (2 * k + 1)
    series = 1 + float(np.cumprod(ratios * cosine**2).sum())
    if freedom % 2 == 0:
        within = sine * series
    elif freedom == 1:
        within = 2 * angle / math.pi
    else:
        within = 2 / math.pi * (angle + sine * cosine * series)
    return (1 + within) / 2


def _check(dense: PerSample, candidate: PerSample, counted: bool) -> None:
    if dense.shape != candidate.shape or dense.ndim != 1 or not len(dense):
        raise SampleError(
            f"values of shape {dense.shape} and {candidate.shape} came, "
            "one value a sample was wanted, of the same samples"
        )
    if counted and not (np.isin(dense, (0, 1)).all() and np.isin(candidate, (0, 1)).all()):
        raise SampleError("a counted metric is 1 or 0 for each sample, other values came")
