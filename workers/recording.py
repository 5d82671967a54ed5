"""Every evaluation is stored before the next; the best so far is published with its files."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy.orm import Session

from search.evaluation import Evaluation
from search.strategy import Candidate, Costs, best
from search.subject import Subject
from service.store import artifacts, candidates, progress
from service.store.artifacts import File
from service.store.blobs import Blobs
from service.store.lease import Lease
from service.store.tables import CandidateRow
from workers import results
from workers.journal import Journal
from workers.pace import Pace


class Recording:
    """The candidates of a job: those of earlier attempts, and one more with each `record`."""

    def __init__(self, journal: Journal, subject: Subject, blobs: Blobs, pace: Pace) -> None:
        """Read what earlier attempts have stored; of their best the files are there as well."""
        self._journal = journal
        self._subject = subject
        self._blobs = blobs
        self._pace = pace
        rows = journal.read(candidates.all_of_job, journal.lease.job_id)
        self.stored = {row.key: _candidate(row) for row in rows}
        for row in rows:
            pace.evaluated(row.seconds)
        faster = [c for c in self.stored.values() if _is_faster(c)]
        self._best = best(faster)

    def record(self, evaluation: Evaluation) -> None:
        """Store a candidate; if it is the best so far, its files as well."""
        row = self._journal.write(
            candidates.record,
            key=evaluation.key,
            point=list(evaluation.point),
            plan=_plan(evaluation),
            state="complete" if evaluation.reason is None else "failed",
            costs=as_json(asdict(evaluation.costs)),
            measured=as_json(evaluation.measured),
            reason=evaluation.reason,
            seconds=evaluation.seconds,
        )
        self._pace.evaluated(evaluation.seconds)
        candidate = Candidate(evaluation.point, evaluation.costs)
        pool = [c for c in (self._best, candidate) if c is not None and _is_faster(c)]
        if best(pool) is candidate:
            self._improve(row, evaluation)
            self._best = candidate
        self._journal.write(progress.progress, self._pace.as_json("searching"))
