"""A job from loading to exporting. Each phase is entered in the database before it begins."""

import logging
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import torch
from sqlalchemy.orm import Session

from search.analysis import table_key
from search.conditions import analysis_condition, baseline_condition, confirmation_condition
from search.confirmation import Confirmation, confirm
from search.evaluation import Evaluator, plan_key
from search.evidence import evidence
from search.found import Found
from search.joint import Table
from search.measurement import circumstances
from search.progress import Report
from search.run import run_search
from search.subject import Subject
from search.widths import analyse_all
from service.settings import Settings
from service.store import artifacts, progress
from service.store import lease as leases
from service.store.artifacts import File
from service.store.blobs import Blobs
from service.store.lease import Lease
from service.store.tables import JobState
from workers.executor import InlineExecutor
from workers.failures import JobError, reason_of
from workers.journal import Journal
from workers.loading import load, read_rows
from workers.pace import Pace, most_evaluations
from workers.recording import Recording, as_json, best_of
from workers.results import confirmed
from workers.table_cache import TableCache, table_of_job

log = logging.getLogger(__name__)

REPORT_SECONDS = 1.0  # between two progress reports of a phase

# What ended a search, in the words of the API.
STOPPED_BY = {"max_seconds": "deadline", "max_evaluations": "max_evaluations", None: None}


def carry_out(journal: Journal, settings: Settings, started: float) -> None:
    """Work through the phases and close the job: succeeded, or failed with a reason.

    Args:
        journal: under the lease of the job, which is loading.
        settings: storage, data and threads.
        started: `time.monotonic()` when the process began.

    Raises:
        LeaseLostError: the job is no longer ours to close.
        Exception: whatever is no fault of the job; another attempt may go better.
    """
    torch.set_num_threads(settings.threads)
    try:
        _Job(journal, settings, started).carry_out()
    except Exception as error:
        reason = reason_of(error)
        if reason is None:
            raise
        log.warning("job failed", extra={"job": journal.lease.job_id, "reason": reason})
        journal.write(leases.finish, JobState.FAILED, reason=reason)


class _Job:
    """What the phases share. Made while the job is loading."""

    def __init__(self, journal: Journal, settings: Settings, started: float) -> None:
        self._journal = journal
        self._blobs = Blobs(settings.blobs)
        self._cache = TableCache(settings.data_dir / "cache" / "tables")
        self._rows = journal.read(read_rows, journal.lease.job_id)
        self._order = load(self._rows, self._blobs, settings.data_root)
        # The deadline is one of all attempts together; the queue does not count.
        self._started = started - self._rows.job.progress.get("seconds", 0.0)
        self._pace = Pace(
            evaluations_max=most_evaluations(self._order.config), started=self._started
        )

    def carry_out(self) -> None:
        config = self._order.config
        self._enter("baseline")
        subject = self._subject()
        self._enter("analysing")
        table = self._table(subject)
        self._enter("searching")
        recording = Recording(self._journal, subject, self._blobs, self._pace)
        recording.catch_up(self._rows.job.best)
        found = self._find(subject, table, recording)
        self._enter("confirming")
        confirmation = confirm(
            subject,
            table,
            config,
            found.candidates,
            self._reports("confirming"),
            left=self._left,
        )
        self._enter("exporting")
        document = as_json(evidence(subject, table, config, found, confirmation))
        files, fault = confirmed(subject, confirmation, document, self._blobs)
        state = self._journal.write(
            _succeed,
            confirmation=confirmation,
            best=_best(confirmation, recording),
            files=files,
            fault=fault,
            stopped_by=STOPPED_BY[found.stopped_by],
        )
        facts = {"job": self._rows.job.id, "state": state, "verdict": confirmation.verdict}
        log.info("job ended", extra=facts)

    def _left(self) -> float:
        return self._order.config.limits.max_seconds - self._pace.seconds

    def _enter(self, phase: str) -> None:
        self._journal.write(_enter, phase, self._pace.as_json(phase))

    def _reports(self, phase: str) -> Report:
        return _Reports(self._journal, self._pace, phase)

    def _subject(self) -> Subject:
        order = self._order
        subject = Subject.prepare(order.model, order.arrays, order.config, order.architecture)
        device = circumstances(subject.device, subject.runtime)
        log.info("device chosen", extra={"job": self._rows.job.id, "circumstances": device})
        values = as_json(subject.baseline.as_json()) | {"circumstances": device}
        self._journal.write(progress.baseline, values)
        self._journal.write(progress.condition, **baseline_condition(subject)._asdict())
        return subject

    def _table(self, subject: Subject) -> Table:
        config = self._order.config
        device = circumstances(subject.device, subject.runtime)
        key = table_key(
            self._rows.model.sha256,
            self._rows.dataset.digest,
            config,
            device["name"],
            device["versions"],
        )
        reports = self._reports("analysing")
        most = config.limits.max_seconds

        def report(fraction: float, sentence: str) -> None:
            if self._pace.seconds > most:
                raise _too_late(most, fraction)
            reports(fraction, sentence)

        table = table_of_job(
            self._journal,
            self._blobs,
            self._cache,
            earlier=self._rows.job.table_sha256,
            key=key,
            analyse=lambda: analyse_all(subject, config, report),
        )
        self._journal.write(progress.condition, **analysis_condition(table)._asdict())
        return table

    def _find(self, subject: Subject, table: Table, recording: Recording) -> Found:
        config = self._order.config
        self._journal.write(
            progress.condition, type="BudgetFeasible", status="unknown", reason="searching"
        )
        reports = self._reports("searching")
        evaluator = Evaluator(subject, table, config.budget, reports, self._left)
        with closing(InlineExecutor(evaluator.evaluate)) as executor:
            return run_search(
                subject,
                table,
                config,
                stored=recording.stored,
                record=recording.record,
                evaluate=executor.map,
                started=self._started,
            )


class _Reports:
    """What a phase tells of its way, about once a second."""

    def __init__(self, journal: Journal, pace: Pace, phase: str) -> None:
        self._journal = journal
        self._pace = pace
        self._phase = phase
        self._next = 0.0

    def __call__(self, fraction: float, sentence: str) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + REPORT_SECONDS
            values = self._pace.as_json(self._phase, fraction, sentence)
            self._journal.write(progress.progress, values)


def _too_late(max_seconds: float, fraction: float) -> JobError:
    detail = (
        f"limits.max_seconds {max_seconds:g} came, and passed while the layers were analysed "
        f"({fraction:.0%} done), before any candidate: allow more time"
    )
    return JobError("timeout", detail, retryable=True)


def _enter(session: Session, lease: Lease, phase: str, values: dict[str, Any]) -> None:
    progress.phase(session, lease, phase)
    progress.progress(session, lease, values)


def _best(confirmation: Confirmation, recording: Recording) -> dict[str, Any] | None:
    """What the job's clients see; None where the dense network stays."""
    if confirmation.measured is None:
        return None
    return {
        **best_of(recording.ids[plan_key(confirmation.plan)], confirmation.measured, "confirmed"),
        "sentence": confirmation.sentence,
        "nearest_max_loss": confirmation.nearest_max_loss,
    }


def _succeed(
    session: Session,
    lease: Lease,
    *,
    confirmation: Confirmation,
    best: dict[str, Any] | None,
    files: Sequence[File],
    fault: str | None,
    stopped_by: str | None,
) -> JobState:
    """The whole result at once, so that no reader ever sees a part of it."""
    artifacts.publish(session, lease, files)
    if best is None:
        leases.write(session, lease, best=None)  # what looked better has not been confirmed
    else:
        progress.best(session, lease, best)
    if fault is not None:
        progress.condition(
            session,
            lease,
            type="ProgramExported",
            status="false",
            reason="export_failed",
            message=fault,
        )
    progress.condition(session, lease, **confirmation_condition(confirmation)._asdict())
    return leases.finish(
        session, lease, JobState.SUCCEEDED, verdict=confirmation.verdict, stopped_by=stopped_by
    )
