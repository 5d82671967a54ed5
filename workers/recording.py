"""Every evaluation is stored before the next; the best so far is published with its files."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy.orm import Session

from compress.plan import Plan
from search.evaluation import Evaluation
from search.strategy import Candidate, Costs, best
from search.subject import Subject
from service.store import artifacts, candidates, progress
from service.store.artifacts import File
from service.store.blobs import Blobs
from service.store.lease import Lease
from service.store.tables import CandidateRow
from workers.journal import Journal
from workers.pace import Pace
from workers.results import unconfirmed

log = logging.getLogger(__name__)


class Recording:
    """The candidates of a job: those of earlier attempts, and one more with each `record`."""

    def __init__(self, journal: Journal, subject: Subject, blobs: Blobs, pace: Pace) -> None:
        """Read what earlier attempts have stored."""
        self._journal = journal
        self._subject = subject
        self._blobs = blobs
        self._pace = pace
        self._best: CandidateRow | None = None
        self.stored: dict[str, Candidate] = {}
        """By the key of the plan: what is told again, and not evaluated again."""
        self.ids: dict[str, str] = {}
        """Of the candidates, by the key of the plan."""
        for row in journal.read(candidates.all_of_job, journal.lease.job_id):
            self._count(row)
            self.stored[row.key] = _candidate(row)

    def catch_up(self, published: Mapping[str, Any] | None) -> None:
        """Publish the best of earlier attempts, if their end came before they could.

        Args:
            published: the best in the job's row.
        """
        if self._best is not None and self._best.id != (published or {}).get("candidate"):
            self._publish(self._best)

    def record(self, evaluation: Evaluation) -> None:
        """Store a candidate; if it is the best so far, its files as well."""
        lease = self._journal.lease
        facts = {"job": lease.job_id, "attempt": lease.attempt, "key": evaluation.key}
        log.info("candidate evaluated", extra={**facts, "seconds": evaluation.seconds})
        row = self._journal.write(
            candidates.record,
            key=evaluation.key,
            point=list(evaluation.point),
            plan=json.loads(evaluation.plan.to_json()),
            state="complete" if evaluation.reason is None else "failed",
            costs=as_json(asdict(evaluation.costs)),
            measured=as_json(evaluation.measured),
            reason=evaluation.reason,
            seconds=evaluation.seconds,
        )
        if self._count(row):
            self._publish(row)
        self._journal.write(progress.progress, self._pace.as_json("searching"))

    def _count(self, row: CandidateRow) -> bool:
        """Whether this is the best so far."""
        self.ids[row.key] = row.id
        self._pace.evaluated(row.seconds)
        rivals = [row] if self._best is None else [self._best, row]
        if best([c for c in map(_candidate, rivals) if c.costs.cost < 1]) != _candidate(row):
            return False
        self._best = row
        return True

    def _publish(self, row: CandidateRow) -> None:
        plan = Plan.from_json(json.dumps(row.plan))
        files = unconfirmed(self._subject, plan, row.measured, self._blobs)
        self._journal.write(_improve, files, best_of(row.id, row.measured, "unconfirmed"))


def best_of(candidate_id: str, measured: Mapping[str, Any], state: str) -> dict[str, Any]:
    """The job's best as its clients see it; `measured` as in `search.evaluation`."""
    return {"candidate": candidate_id, "state": state, **as_json(measured)}


def as_json(value: Any) -> Any:
    """The same with None for numbers that are not finite, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: as_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(entry) for entry in value]
    return value


def _improve(session: Session, lease: Lease, files: Sequence[File], values: dict[str, Any]) -> None:
    artifacts.publish(session, lease, files)
    progress.best(session, lease, values)


def _candidate(row: CandidateRow) -> Candidate:
    costs = {name: math.nan if cost is None else cost for name, cost in row.costs.items()}
    return Candidate(tuple(row.point), Costs(**costs))
