"""The whole search: from a trained network, data and a promise to the fastest network in keeping.

    result = search_ranks(model, builtin("digits", root), SearchConfig(budget=budget))
    print(result.confirmation.sentence)
    result.save("result")

The same as its parts, which a job process calls one by one, storing what each gives:

    subject = Subject.prepare(model, arrays, config, architecture)      # search.subject
    subject.baseline.as_json()
    table = analyse_all(subject, config, report)                        # search.widths
    found = run_search(
        subject, table, config, stored=stored, record=record, checkpoint=checkpoint
    )
    confirmation = confirm(subject, table, config, found.candidates)    # search.confirmation
    document = evidence(subject, table, config, found, confirmation)    # search.evidence, JSON
    export(folder, subject, confirmation.model, confirmation.plan, document)

`search.conditions` says in a line what each part found.

A table from an earlier job, `search.joint.read_table`, kept under `search.analysis.table_key`,
stands in for the call of `analyse_all`.
"""

import copy
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from compress.artifact import PROGRAMS, write_result
from compress.batch import tensors_of
from compress.plan import Plan
from search.config import SearchConfig
from search.confirmation import Confirmation, confirm
from search.data.arrays import Arrays
from search.evaluation import Evaluation, Evaluator, plan_key
from search.evidence import evidence
from search.found import Found, StoppedBy
from search.joint import Table
from search.progress import Left, Report, silent
from search.report import markdown
from search.strategies import make_strategy
from search.strategy import Candidate, Point, search
from search.subject import Subject
from search.widths import analyse_all

Clock = Callable[[], float]

EvaluateAll = Callable[[Sequence[Point]], Iterator[Evaluation]]


class Cancelled(Exception):  # noqa: N818, a decision of the user, no error
    """Raised by a `checkpoint` to end the search; it passes through to the caller."""


class _LimitReached(Exception):  # noqa: N818, never leaves this file
    def __init__(self, limit: StoppedBy) -> None:
        self.limit = limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What `search_ranks` gives."""

    subject: Subject
    table: Table
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
    table: Table,
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
    table = analyse_all(subject, config, report)
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
