"""A worker's hold on a job: a token that fences every write, and a time that has to be renewed.

The database's clock decides; a worker that has died or hangs is found out by its silence. A late
one is harmless: it no longer has the token of the job.
"""

import uuid
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Update, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from service.store import clock, events
from service.store.errors import LeaseLostError
from service.store.tables import LEASED, JobRow, JobState

LET_GO: Final = {"phase": None, "lease_owner": None, "lease_token": None, "lease_until": None}
"""The columns of a job that nobody holds."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What a worker holds; a job process gets it on its command line."""

    job_id: str
    token: str
    attempt: int


def claim(session: Session, owner: str, ttl_seconds: float) -> Lease | None:
    """Take the next job: the first by priority and time of those queued or fallen silent.

    No two workers get the same one. Of the silent ones, a job that was being cancelled ends
    cancelled at the next claim, and one that has spent its attempts ends failed (worker_lost)
    when its turn comes.
    """
    waiting = aliased(JobRow)
    is_silent = waiting.state.in_(LEASED) & (waiting.lease_until < clock.at(0))
    oldest = (
        select(waiting.id)
        .where(or_(waiting.state == JobState.QUEUED, is_silent))
        .order_by(
            waiting.cancel_requested.desc(), waiting.priority.desc(), waiting.queued_at, waiting.id
        )
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    token = uuid.uuid4().hex
    take = _changed(
        update(JobRow).where(JobRow.id == oldest.scalar_subquery()),
        state=JobState.RUNNING,
        phase="loading",
        attempt=JobRow.attempt + 1,
        lease_owner=owner,
        lease_token=token,
        lease_until=clock.at(ttl_seconds),
        started_at=func.coalesce(JobRow.started_at, clock.at(0)),
    ).returning(JobRow.id, JobRow.attempt, JobRow.max_attempts, JobRow.cancel_requested)
    while (taken := session.execute(take).one_or_none()) is not None:
        lease = Lease(taken.id, token, taken.attempt)
        if not taken.cancel_requested and taken.attempt <= taken.max_attempts:
            running = {"state": JobState.RUNNING, "attempt": lease.attempt}
            events.append(session, lease.job_id, "state", running)
            events.append(session, lease.job_id, "phase", {"phase": "loading"})
            return lease
        write(session, lease, attempt=taken.attempt - 1)  # one that does not begin
        if taken.cancel_requested:
            finish(session, lease, JobState.CANCELLED)
        else:
            silence = f"no word from the worker of attempt {taken.max_attempts}, the last one"
            finish(session, lease, JobState.FAILED, reason=worker_lost(silence))
    return None


def renew(session: Session, lease: Lease, ttl_seconds: float) -> bool:
    """Hold on for another `ttl_seconds`. No change of the job that its clients see.

    Returns:
        Whether the worker has been told to stop.

    Raises:
        LeaseLostError: stop at once.
    """
    cancel_requested = session.scalar(
        _held(lease).values(lease_until=clock.at(ttl_seconds)).returning(JobRow.cancel_requested)
    )
    if cancel_requested is None:
        raise LeaseLostError(lease.job_id, lease.attempt)
    return cancel_requested


def write(session: Session, lease: Lease, **values: Any) -> None:
    """Set columns of the job. The row is locked from here to the commit.

    Raises:
        LeaseLostError: nothing was written.
    """
    statement = _changed(_held(lease), **values).returning(JobRow.id)
    if session.scalar(statement) is None:
        raise LeaseLostError(lease.job_id, lease.attempt)


def release(session: Session, lease: Lease, error: str | None) -> None:
    """Let go of a job that has not ended: it is queued again and keeps its place.

    When its attempts are spent it ends failed instead, and cancelled if it was being cancelled.

    Args:
        error: what ended the attempt; None for a worker that is being shut down in good order,
            which leaves the attempt uncounted.

    Raises:
        LeaseLostError: nothing was written.
    """
    may_go_on = _held(lease, JobState.RUNNING)
    if error is not None:
        may_go_on = may_go_on.where(JobRow.attempt < JobRow.max_attempts)
    statement = _changed(
        may_go_on,
        state=JobState.QUEUED,
        attempt=JobRow.attempt - int(error is None),
        **LET_GO,
    ).returning(JobRow.id)
    if session.scalar(statement) is None:
        finish(session, lease, JobState.FAILED, reason=worker_lost(error or ""))
        return
    queued = {"state": JobState.QUEUED, "attempt": lease.attempt, "error": error}
    events.append(session, lease.job_id, "state", queued)


def finish(
    session: Session,
    lease: Lease,
    state: JobState,
    *,
    verdict: str | None = None,
    stopped_by: str | None = None,
    reason: dict[str, Any] | None = None,
) -> JobState:
    """End the job. One that was being cancelled ends cancelled, whatever came out in between.

    Args:
        reason: of a failure: {"code": ..., "detail": ..., "retryable": ...}.

    Returns:
        The state it ended in.

    Raises:
        LeaseLostError: nothing was written.
    """
    assert state.is_terminal
    outcome = {"verdict": verdict, "stopped_by": stopped_by, "reason": reason}
    ends = LET_GO | {"finished_at": clock.at(0)}
    running = _changed(_held(lease, JobState.RUNNING), state=state, **outcome, **ends)
    if session.scalar(running.returning(JobRow.id)) is None:
        if state is not JobState.CANCELLED:
            state, outcome = JobState.CANCELLED, dict.fromkeys(outcome)
        cancelling = _changed(_held(lease, JobState.CANCELLING), state=state, **outcome, **ends)
        if session.scalar(cancelling.returning(JobRow.id)) is None:
            raise LeaseLostError(lease.job_id, lease.attempt)
    events.append(session, lease.job_id, "state", {"state": state, **outcome})
    events.append(session, lease.job_id, "done", {"state": state})
    return state


def worker_lost(detail: str) -> dict[str, Any]:
    """The reason of a job whose workers died too often."""
    return {"code": "worker_lost", "detail": detail, "retryable": True}


def _held(lease: Lease, *states: JobState) -> Update:
    return update(JobRow).where(
        JobRow.id == lease.job_id,
        JobRow.lease_token == lease.token,
        JobRow.state.in_(states or LEASED),
    )


def _changed(statement: Update, **values: Any) -> Update:
    return statement.values(version=JobRow.version + 1, updated_at=clock.at(0), **values)
