"""The promise, kept or not, on images that the search never saw.

The finalists are tested in an order that is fixed before the confirmation split is touched, from
the safest to the cheapest, each at the full confidence, and the first failure ends the testing.
No correction is needed for testing several: let F be the first in the order that really breaks
the promise. Nothing is let through wrongly unless F itself passes its test, since everything
behind F is only tested after that; and that has at most the chance of a single test. This is the
fixed-sequence procedure of Maurer, Hothorn and Lehmacher, "Multiple comparisons in drug clinical
trials and preclinical assays: a-priori ordered hypotheses", 1995. Which of the networks that
passed is taken may be decided by anything: here by racing all of them against dense.
"""

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from compress.errors import UnstableError
from compress.plan import Plan
from search.budget import LossEstimate, Verdict, samples_needed, verdict
from search.config import COUNTED, Budget, SearchConfig
from search.evaluation import (
    AnswerError,
    allowed_on,
    loss_on,
    shown_loss,
    shown_race,
    shown_recovery,
)
from search.finalists import finalists
from search.joint import Table
from search.measurement import Ratio
from search.progress import Left, Report, endless, silent
from search.strategy import Candidate, Point
from search.subject import Subject
from search.wording import Words, said_cost, words_of

RACING = 3  # of those that passed, the last and by the search the cheapest
RACE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """A finalist on the confirmation split."""

    point: Point
    plan: Plan
    model: nn.Module
    loss: LossEstimate
    passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """What a job ends with. With `no_gain` the network is the dense one, and its plan is empty."""

    verdict: Verdict
    sentence: str
    """The verdict for a person, with its figures and what to do next."""
    point: Point
    plan: Plan
    model: nn.Module
    measured: dict[str, Any] | None
    """JSON as in Evaluation, on the confirmation split; None for the dense network."""
    nearest_max_loss: float | None
    """Where the budget was missed: one that this network keeps, in the budget's own unit."""
    tested: tuple[Tested, ...]
    """In the order of the tests; the last may have failed."""


def confirm(
    subject: Subject,
    table: Table,
    config: SearchConfig,
    candidates: list[Candidate],
    report: Report = silent,
    *,
    left: Left = endless,
) -> Confirmation:
    """Test the finalists on the confirmation split and race those that pass.

    A finalist that was recovered in an earlier process, or too long ago to be kept, is recovered
    anew, in what time the job has left: it is this very network that is tested and, if it passes,
    returned.

    Args:
        subject: its confirmation split has served for nothing yet.
        table: that the candidates' points belong to.
        config: budget and objective.
        candidates: all that were evaluated, in any order.
        report: told how far the recovery of a finalist is.
        left: of the job.
    """
    budget, words = config.budget, words_of(config.objective)
    order = finalists(table, candidates, allowed_on(subject.search, budget))
    tested = _test(subject, table, budget, order, report, left=left)
    if not tested:
        return _dense(subject, table, _why_nothing_cheaper(table, candidates, words), tested)
    passed = [finalist for finalist in tested if finalist.passed]
    racing = passed[-RACING:] or tested[:1]
    allowed = allowed_on(subject.confirmation, budget)
    timed = subject.race(
        {str(i): entry.model for i, entry in enumerate(racing)},
        seconds=RACE_SECONDS,
        as_dense=False,
    )
    costs = {name: _raced(table, racing[int(name)].point, r) for name, r in timed.ratios.items()}
    name = min(costs, key=lambda name: costs[name].median)
    winner, cost = racing[int(name)], costs[name]
    found = verdict(winner.loss, allowed, cost.high)
    if found == "no_gain":
        return _dense(
            subject,
            table,
            f"The {words.cheapest} network that keeps the promise takes "
            f"{100 * cost.median:.1f} % of the dense network's {words.noun} "
            f"({100 * cost.low:.1f} to {100 * cost.high:.1f} %): no gain beyond the noise of "
            "the timing, so the dense network stays.",
            tested,
        )
    chosen, choices = table.of(winner.point)
    measured = {
        "loss": shown_loss(budget, winner.loss, allowed),
        "recovery": shown_recovery(subject, subject.confirmation, winner.plan),
        "cost": cost.median,
        "parameters": chosen.parameters(choices),
        "macs": chosen.macs(choices),
        **shown_race(timed, name),
    }
    nearest = None
    speed = _said_speed(measured) + said_cost(config.objective, cost.median)
    sentence = f"{_said_loss(budget, measured)}, {speed}."
    if found == "budget_missed":
        dense_value = float(subject.confirmation.dense_values(budget.metric).mean())
        nearest = _nearest(budget, dense_value, winner.loss)
        sentence += _advice(budget, dense_value, winner.loss, allowed, nearest)
    return Confirmation(
        verdict=found,
        sentence=sentence,
        point=winner.point,
        plan=winner.plan,
        model=winner.model,
        measured=measured,
        nearest_max_loss=nearest,
        tested=tuple(tested),
    )


def _raced(table: Table, point: Point, time: Ratio) -> Ratio:
    """The cost of a point, with the interval that its time leaves open."""
    chosen, choices = table.of(point)
    others = chosen.mac_share(choices), chosen.parameter_share(choices)
    return Ratio(*(chosen.weights.cost(t, *others) for t in (time.median, time.low, time.high)))


def _test(
    subject: Subject,
    table: Table,
    budget: Budget,
    order: list[Candidate],
    report: Report,
    *,
    left: Left,
) -> list[Tested]:
    """The finalists up to the first that fails."""
    allowed = allowed_on(subject.confirmation, budget)
    tested: list[Tested] = []
    for i, candidate in enumerate(order):

        def onward(fraction: float, sentence: str, before: int = i) -> None:
            report((before + fraction) / len(order), sentence)

        plan = table.plan(candidate.point)
        try:
            model = subject.assemble(plan, onward, left=left)
            loss = loss_on(subject.confirmation, model, budget)
        except (AnswerError, UnstableError):  # recovered anew, it may be another network
            break
        passed = loss.violation(allowed) <= 0
        tested.append(
            Tested(point=candidate.point, plan=plan, model=model, loss=loss, passed=passed)
        )
        if not passed:
            break
    return tested


def _dense(subject: Subject, table: Table, sentence: str, tested: list[Tested]) -> Confirmation:
    return Confirmation(
        verdict="no_gain",
        sentence=sentence,
        point=table.dense_point,
        plan=Plan(),
        model=subject.opponent,
        measured=None,
        nearest_max_loss=None,
        tested=tuple(tested),
    )


def _why_nothing_cheaper(table: Table, candidates: list[Candidate], words: Words) -> str:
    if not candidates and not table.is_empty:
        return "The limits were reached before any network was tried: give the job more time."
    if table.is_empty:
        return (
            f"No layer has a form that is {words.cheaper} on this device at this batch size, "
            "so the dense network stays."
        )
    if any(c.costs.cost < 1 for c in candidates):
        return f"Of the {words.cheaper} networks none could be computed on the confirmation images."
    return (
        f"Of {len(candidates)} networks that were tried none was {words.cheaper} than the dense "
        "one, which therefore stays."
    )


def _said_loss(budget: Budget, measured: dict[str, Any]) -> str:
    loss = measured["loss"]
    unit = f"points of {budget.metric}" if budget.metric in COUNTED else f"of {budget.metric}"
    bound = (
        ""
        if budget.confidence is None or loss["upper"] is None
        else f", at most {loss['upper']:.3g} with {100 * budget.confidence:g} % confidence"
    )
    return (
        f"Loses {loss['value']:.3g} {unit} on {loss['samples']:,} images that served for nothing "
        f"else{bound} (allowed: {loss['allowed']:.3g})"
    )


def _said_speed(measured: dict[str, Any]) -> str:
    low, high = measured["speedup_low"], measured["speedup_high"]
    return (
        f"{measured['speedup']:.2f} times as fast as dense in {measured['runtime']} "
        f"({low:.2f} to {high:.2f})"
    )


def _nearest(budget: Budget, dense_value: float, loss: LossEstimate) -> float:
    """The least budget that this network keeps, rounded up to three digits."""
    least = budget.shown(loss.upper)
    if budget.unit == "relative_percent":
        least = 100 * loss.upper / abs(dense_value) if dense_value else math.inf
    if not 0 < least < math.inf:
        return max(0.0, least)
    step = 10.0 ** (math.floor(math.log10(least)) - 2)
    return round(math.ceil(least / step) * step, 12)


def _advice(
    budget: Budget, dense_value: float, loss: LossEstimate, allowed: float, nearest: float
) -> str:
    """What to do after a budget was missed."""
    unit = "points" if budget.unit == "points" else "relative percent"
    advice = f" The nearest budget that it keeps is {nearest:g} {unit}."
    if loss.value <= allowed:
        share = (loss.worse + loss.better) / loss.samples
        needed = samples_needed(budget, dense_value, loss.samples, share)
        if needed is not None and needed > loss.samples:
            advice += (
                f" Its loss alone is within: with at least {needed:,} confirmation images "
                "it could be shown to keep the promise."
            )
    return advice
