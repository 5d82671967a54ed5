"""From a point to its costs: assemble, repair, recover, measure the loss, race against dense."""

import hashlib
import math
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from compress.errors import CompressError, UnstableError
from compress.plan import Plan
from compress.recurrent.guards import finite
from search.budget import LossEstimate, estimate
from search.config import COUNTED, Budget, Weights
from search.errors import SearchError
from search.joint import Table, tables_of
from search.measurement import Race
from search.progress import Left, Report, endless, silent
from search.samples import Samples
from search.strategy import FAILED, Costs, Point
from search.subject import Subject

CERTAINTY = 0.999  # that a candidate is outside, before it is stopped early
FIRST_LOOK = 256  # samples; each further look is at twice as many
RACE_SECONDS = 0.5


class AnswerError(SearchError, ArithmeticError):
    """A network answers with values that are not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A candidate with all that is stored of it."""

    key: str
    point: Point
    plan: Plan
    costs: Costs
    measured: dict[str, Any]
    """JSON: loss, recovery, cost, latency_ms, dense_latency_ms, speedup, runtime, parameters,
    macs; {} if it failed."""
    reason: str | None
    """Why it failed."""
    seconds: float


def plan_key(plan: Plan) -> str:
    """What a candidate is stored under: the digest of its plan."""
    return hashlib.sha256(plan.to_json().encode()).hexdigest()


class Evaluator:
    """Evaluates points on the search split of a subject."""

    def __init__(
        self,
        subject: Subject,
        table: Table,
        budget: Budget,
        report: Report = silent,
        left: Left = endless,
    ) -> None:
        """Be ready for the points of a table.

        Args:
            subject: the network.
            table: that the points belong to.
            budget: that losses are held against.
            report: told how far the recovery of a candidate is.
            left: of the job, with which the recovery of a candidate ends.
        """
        self._subject = subject
        self._left = left
        self._report = report
        self._table = table
        self._budget = budget
        # What an earlier job's table spared: one pass for all layers, not one for each plan.
        for each in tables_of(table):
            factors = subject.narrowed(each.start.widths).factors
            factors.collect(
                [
                    layer.name
                    for layer in each.layers
                    if not all(
                        row.choice is None or factors.known(layer.name, row.choice)
                        for row in layer.choices
                    )
                ]
            )

    def evaluate(self, point: Point) -> Evaluation:
        """Costs of a point; NaN with a reason where its network cannot be made or computed.

        A candidate within the budget has seen the whole search split. One that is outside with
        99.9 % certainty after a part of it is stopped there.
        """
        start = time.perf_counter()
        plan = self._table.plan(point)
        costs, measured, reason = FAILED, dict[str, Any](), None
        try:
            costs, measured = self._measure(point, plan)
        except (CompressError, AnswerError) as error:
            reason = "; ".join([f"{type(error).__name__}: {error}", *notes_of(error)])
        return Evaluation(
            key=plan_key(plan),
            point=point,
            plan=plan,
            costs=costs,
            measured=measured,
            reason=reason,
            seconds=time.perf_counter() - start,
        )

    def _measure(self, point: Point, plan: Plan) -> tuple[Costs, dict[str, Any]]:
        subject, budget = self._subject, self._budget
        table, choices = self._table.of(point)
        model = subject.assemble(plan, self._report, left=self._left)
        costs, loss, timed = judged(
            subject,
            model,
            budget,
            table.weights,
            parameter_share=table.parameter_share(choices),
            mac_share=table.mac_share(choices),
        )
        allowed = allowed_on(subject.search, budget)
        measured = {
            "loss": shown_loss(budget, loss, allowed),
            "recovery": shown_recovery(subject, subject.search, plan, stop_early=True),
            "cost": costs.cost,
            "parameters": table.parameters(choices),
            "macs": table.macs(choices),
            **shown_race(timed, "candidate"),
        }
        return costs, measured


def judged(
    subject: Subject,
    model: nn.Module,
    budget: Budget,
    weights: Weights,
    *,
    parameter_share: float,
    mac_share: float,
) -> tuple[Costs, LossEstimate, Race]:
    """The costs of a network, of its loss on the search split and its race against dense.

    Args:
        subject: the dense network, its search split and what it is timed in.
        model: in eval mode, on the device.
        budget: that its loss is held against.
        weights: of what is minimised.
        parameter_share: its parameters over those of the dense network.
        mac_share: likewise its MACs.

    Raises:
        AnswerError: as `loss_on`.
    """
    loss = loss_on(subject.search, model, budget, stop_early=True)
    timed = subject.race({"candidate": model}, seconds=RACE_SECONDS)
    time_share = timed.ratios["candidate"].median
    costs = Costs(
        loss=loss.value,
        violation=loss.violation(allowed_on(subject.search, budget)),
        time_share=time_share,
        parameter_share=parameter_share,
        mac_share=mac_share,
        cost=weights.cost(time_share, mac_share, parameter_share),
    )
    return costs, loss, timed


def loss_on(
    samples: Samples, model: nn.Module, budget: Budget, *, stop_early: bool = False
) -> LossEstimate:
    """The paired loss of `model` on a split.

    Args:
        samples: the split, with the dense network's answers.
        model: in eval mode, on the device.
        budget: whose metric, and whose confidence for the upper bound.
        stop_early: look after 256 samples, and each time they have doubled, whether the lower
            99.9 % bound lies beyond the budget already; if so, estimate from these alone.

    Raises:
        AnswerError: an answer, or the metric of it, is not finite.
    """
    dense = samples.dense_values(budget.metric)
    allowed = allowed_on(samples, budget)
    certain = replace(budget, confidence=CERTAINTY)
    parts: list[np.ndarray] = []
    seen, look = 0, FIRST_LOOK
    for answers in samples.answers(model):
        if not answers.isfinite().all():
            raise AnswerError(f"the network's answers are not finite{_where(samples, model)}")
        parts.append(samples.values(budget.metric, answers, start=seen))
        seen += len(answers)
        if stop_early and look <= seen < len(samples):
            look = 2 * seen
            # the upper bound of what dense loses against the candidate is the lower bound wanted
            gain = estimate(certain, np.concatenate(parts), dense[:seen])
            if -gain.upper > allowed:
                break
    found = estimate(budget, dense[:seen], np.concatenate(parts))
    if not math.isfinite(found.value):
        raise AnswerError(f"the network's {budget.metric} is not finite")
    return found


def _where(samples: Samples, model: nn.Module) -> str:
    """What the first layer is that puts out values that are not finite."""
    try:
        with finite(model):
            for _ in samples.answers(model):
                pass
    except UnstableError as error:
        return f": {error}"
    return ""


def allowed_on(samples: Samples, budget: Budget) -> float:
    """The loss that the budget allows on a split, as a difference of the metric itself."""
    return budget.allowed(float(samples.dense_values(budget.metric).mean()))


def shown_loss(budget: Budget, loss: LossEstimate, allowed: float) -> dict[str, Any]:
    """A loss as JSON, in the numbers that a person reads."""
    return {
        "value": budget.shown(loss.value),
        "upper": budget.shown(loss.upper) if math.isfinite(loss.upper) else None,
        "allowed": budget.shown(allowed),
        "unit": "points" if budget.metric in COUNTED else "difference",
        "metric": budget.metric,
        "samples": loss.samples,
        "worse": loss.worse,
        "better": loss.better,
    }


def shown_recovery(
    subject: Subject, samples: Samples, plan: Plan, *, stop_early: bool = False
) -> dict[str, Any] | None:
    """What recovery gave a network that was assembled, as JSON; None if none was ordered.

    `loss_before` is that of the network before it was recovered, on the same split as its loss;
    None where that cannot be computed.
    """
    recovered = subject.recovered(plan)
    if recovered is None:
        return None
    budget, model = subject.config.budget, subject.repaired(plan)
    try:
        before = budget.shown(loss_on(samples, model, budget, stop_early=stop_early).value)
    except AnswerError:
        before = None
    return {"loss_before": before, **recovered.as_json()}


def shown_race(timed: Race, name: str) -> dict[str, Any]:
    """One network's race against dense as JSON; speed-ups are T_dense / T."""
    ratio = timed.ratios[name]
    return {
        "latency_ms": asdict(timed.timings[name]),
        "dense_latency_ms": asdict(timed.timings["dense"]),
        "speedup": 1 / ratio.median,
        "speedup_low": 1 / ratio.high,
        "speedup_high": 1 / ratio.low,
        "layout": timed.layouts[name],
        "runtime": timed.runtime,
    }


def notes_of(error: BaseException) -> list[str]:
    """What was added to an error on its way up; `str(error)` leaves it out."""
    return getattr(error, "__notes__", [])
