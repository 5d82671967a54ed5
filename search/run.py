"""The whole search: from a trained network, data and a promise to the fastest network in keeping.

    result = search_ranks(model, builtin("digits", root), SearchConfig(budget=budget))
    print(result.confirmation.sentence)
    result.save("result")

The same as its parts, which a job process calls one by one, storing what each gives:

    subject = Subject.prepare(model, arrays, config, architecture)      # search.subject
    subject.baseline.as_json()
    table = analyse(subject, config, report)                            # search.analysis
    found = run_search(
        subject, table, config, stored=stored, record=record, checkpoint=checkpoint
    )
    confirmation = confirm(subject, table, config, found.candidates)    # search.confirmation
    document = evidence(subject, table, config, found, confirmation)    # JSON
    export(folder, subject, confirmation.model, confirmation.plan, document)

`search.conditions` says in a line what each part found.

A table from an earlier job, `ChoiceTable.from_json`, kept under `search.analysis.table_key`, stands
in for the call of `analyse`.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import nn

from compress.artifact import PROGRAMS, write_result
from compress.batch import tensors_of
from compress.plan import Plan
from search.analysis import analyse
from search.config import Budget, SearchConfig
from search.confirmation import Confirmation, confirm
from search.data.arrays import Arrays
from search.evaluation import Evaluation, Evaluator, allowed_on, plan_key, shown_loss
from search.measurement import circumstances
from search.pareto import unbeaten
from search.progress import Left, Report, silent
from search.report import markdown
from search.strategies import make_strategy
from search.strategy import Candidate, Point, search
from search.subject import Subject
from search.surrogate import limit, surrogate
from search.table import ChoiceRow, ChoiceTable, LayerRow

StoppedBy = Literal["max_seconds", "max_evaluations"]

Clock = Callable[[], float]

EvaluateAll = Callable[[Sequence[Point]], Iterator[Evaluation]]


class Cancelled(Exception):  # noqa: N818, a decision of the user, no error
    """Raised by a `checkpoint` to end the search; it passes through to the caller."""


class _LimitReached(Exception):  # noqa: N818, never leaves this file
    def __init__(self, limit: StoppedBy) -> None:
        self.limit = limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the search came to."""

    candidates: list[Candidate]
    """All that were evaluated, in earlier attempts too."""
    stopped_by: StoppedBy | None
    """The limit that ended it; None if the strategy had no more questions."""
    seconds: float
    """What this attempt took."""
    samples_saved: float = 0.0
    """Share of the samples of its evaluations that an early stop spared this attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What `search_ranks` gives."""

    subject: Subject
    table: ChoiceTable
    found: Found
    confirmation: Confirmation
    evidence: dict[str, Any]

    def save(self, folder: str | Path, *, programs: Collection[str] = PROGRAMS) -> list[Path]:
        """Write the files of the result: weights, manifest, loader, programs, report."""
        found, subject = self.confirmation, self.subject
        return export(
            Path(folder), subject, found.model, found.plan, self.evidence, programs=programs
        )


def run_search(
    subject: Subject,
    table: ChoiceTable,
    config: SearchConfig,
    *,
    stored: Mapping[str, Candidate] | None = None,
    record: Callable[[Evaluation], None] = lambda _: None,
    checkpoint: Callable[[], None] = lambda: None,
    evaluate: EvaluateAll | None = None,
    clock: Clock = time.monotonic,
    started: float | None = None,
) -> Found:
    """Ask, evaluate and tell until the strategy has no more questions or a limit is reached.

    Args:
        subject: the network.
        table: its choice table.
        config: budget, strategy and limits.
        stored: candidates of earlier attempts by `plan_key`: told again, not evaluated again.
        record: gets each new evaluation before the next one is waited for.
        checkpoint: called before each evaluation; what it raises, `Cancelled` say, ends the search.
        evaluate: the points of an ask, in any order of completion, each when it is taken;
            by default `Evaluator.evaluate`, one after the other.
        clock: seconds.
        started: what the clock showed when the job began, less what earlier attempts took; by
            default this call is the beginning.
    """
    begun = clock()
    started = begun if started is None else started
    left = _left(config, started, clock)
    evaluate = evaluate or partial(
        map, Evaluator(subject, table, config.budget, left=left).evaluate
    )
    known = dict(stored or {})
    told: dict[str, Candidate] = {}
    seen: list[int] = []

    def answer(points: list[Point]) -> list[Candidate]:
        keys = [plan_key(table.plan(point)) for point in points]
        told.update((key, known[key]) for key in keys if key in known)
        unknown = {key: point for key, point in zip(keys, points, strict=True) if key not in known}
        evaluations = evaluate(list(unknown.values()))
        for _ in unknown:
            checkpoint()
            if len(told) >= config.limits.max_evaluations:
                raise _LimitReached("max_evaluations")
            if left() <= 0:
                raise _LimitReached("max_seconds")
            evaluation = next(evaluations)
            record(evaluation)
            if evaluation.reason is None:
                seen.append(evaluation.measured["loss"]["samples"])
            told[evaluation.key] = Candidate(evaluation.point, evaluation.costs)
        return [Candidate(p, told[key].costs) for p, key in zip(points, keys, strict=True)]

    stopped_by: StoppedBy | None = None
    try:
        for _ in search(make_strategy(config.search, table), answer):
            pass
    except _LimitReached as reached:
        stopped_by = reached.limit
    return Found(
        candidates=list(told.values()),
        stopped_by=stopped_by,
        seconds=clock() - begun,
        samples_saved=1 - sum(seen) / (len(seen) * len(subject.search)) if seen else 0.0,
    )


def _left(config: SearchConfig, started: float, clock: Clock = time.monotonic) -> Left:
    return lambda: started + config.limits.max_seconds - clock()


def evidence(
    subject: Subject,
    table: ChoiceTable,
    config: SearchConfig,
    found: Found,
    confirmation: Confirmation,
) -> dict[str, Any]:
    """All that a reader needs to believe the result: JSON in the words of `search.report`."""
    budget = config.budget
    allowed = allowed_on(subject.confirmation, budget)
    front = unbeaten(
        found.candidates,
        dense_point=table.dense_point,
        allowed=allowed_on(subject.search, budget),
    )
    return {
        "verdict": confirmation.verdict,
        "sentence": confirmation.sentence,
        "nearest_max_loss": confirmation.nearest_max_loss,
        "stopped_by": found.stopped_by,
        "budget": asdict(budget),
        "search": asdict(config.search),
        "recovery": _recovery(subject, config),
        "objective": asdict(config.objective)
        | {"device": subject.device.type, "weights": asdict(config.objective.minimised)},
        "circumstances": circumstances(subject.device, subject.runtime),
        "splits": {
            "calibration": sum(map(len, subject.calibration)),
            "search": len(subject.search),
            "confirmation": len(subject.confirmation),
        },
        "dense": subject.baseline.as_json(),
        "not_simplified": subject.not_simplified,
        "result": confirmation.measured,
        "layers": [
            _layer(layer, row)
            for layer, row in zip(table.layers, table.rows(confirmation.point), strict=True)
        ],
        "kept_dense": dict(table.kept_dense),
        "tested": [
            {
                "plan": json.loads(finalist.plan.to_json()),
                "loss": shown_loss(budget, finalist.loss, allowed),
                "passed": finalist.passed,
            }
            for finalist in confirmation.tested
        ],
        "front": [_on_front(table, budget, candidate) for candidate in front],
        "evaluations": len(found.candidates),
        "failed": sum(math.isnan(c.costs.loss) for c in found.candidates),
        "search_seconds": round(found.seconds, 3),
        "samples_saved": round(found.samples_saved, 4),
        "surrogate": surrogate(table, found.candidates),
        "limit": limit(table, confirmation.measured["speedup"] if confirmation.measured else 1.0),
    }


def _on_front(table: ChoiceTable, budget: Budget, candidate: Candidate) -> dict[str, Any]:
    """A candidate by its costs on the search split, its loss in the numbers a person reads."""
    costs = candidate.costs
    return {
        "plan": json.loads(table.plan(candidate.point).to_json()),
        "loss": budget.shown(costs.loss),
        "within": costs.is_feasible,
        "cost": costs.cost,
        "speedup": 1 / costs.time_share,
        "parameter_share": costs.parameter_share,
        "mac_share": costs.mac_share,
    }


def _recovery(subject: Subject, config: SearchConfig) -> dict[str, Any] | None:
    """As it was ordered, and what candidates were trained on and judged by meanwhile."""
    material = subject.material
    if material is None:
        return None
    return asdict(config.recovery) | {
        "samples": len(material),
        "left_out": material.left_out,
        "from_training": material.is_training,
    }


def _layer(layer: LayerRow, row: ChoiceRow) -> dict[str, Any]:
    """A layer as it was and as it is; latencies are of the layer alone."""
    return {
        "name": layer.name,
        "method": row.choice and row.choice.method,
        "ranks": row.choice and list(row.choice.ranks),
        "predicted_error": row.loss,
        "dense_latency_ms": layer.dense.latency_ms,
        "latency_ms": row.latency_ms,
        "dense_parameters": layer.dense.parameters,
        "parameters": row.parameters,
        "dense_macs": layer.dense.macs,
        "macs": row.macs,
        "choices": len(layer.choices) - 1,
    }


def search_ranks(
    model: nn.Module,
    arrays: Arrays,
    config: SearchConfig,
    architecture: Mapping[str, Any] | None = None,
    *,
    report: Report = silent,
    record: Callable[[Evaluation], None] = lambda _: None,
) -> Result:
    """Find the fastest factorised form of `model` that keeps the budget on these data.

    Args:
        model: the trained network; left as it is.
        arrays: what it is measured on, see `search.data`.
        config: the promise, the circumstances, the strategy and its limits.
        architecture: of `compress.architectures.describe`; without it the result is loaded with
            the function that builds your network, `load(folder, factory=...)`.
        report: told how far the analysis is.
        record: gets each evaluation.
    """
    started = time.monotonic()
    own = {"registry": "factory", "name": type(model).__name__}
    subject = Subject.prepare(model, arrays, config, dict(architecture or own))
    table = analyse(subject, config, report)
    found = run_search(subject, table, config, record=record, started=started)
    left = _left(config, started)
    confirmation = confirm(subject, table, config, found.candidates, left=left)
    document = evidence(subject, table, config, found, confirmation)
    return Result(
        subject=subject,
        table=table,
        found=found,
        confirmation=confirmation,
        evidence=document,
    )


def export(
    folder: Path,
    subject: Subject,
    model: nn.Module,
    plan: Plan,
    document: Mapping[str, Any],
    *,
    programs: Collection[str] = PROGRAMS,
) -> list[Path]:
    """Write the files of `compress.artifact.write_result` for a network, from the CPU.

    Where the document is the evidence of a verdict, report.md tells it to a person.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reports = [folder / "report.md"] if "verdict" in document else []
    for report in reports:
        report.write_text(markdown(document), "utf-8")
    example = subject.example.cpu()
    first, *_ = tensors_of(example)
    written = write_result(
        folder,
        copy.deepcopy(model).cpu(),
        plan,
        architecture=subject.architecture,
        input_shape=first.shape[1:],
        evidence=document,
        example=example,
        programs=programs,
    )
    return [*reports, *written]
