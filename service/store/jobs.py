"""Searches, as their clients see them; workers have `lease`."""

from typing import Any

from sqlalchemy import delete as delete_from
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.store import clock, events
from service.store.errors import NameTakenError, NotFoundError, StateConflictError
from service.store.ids import new_id
from service.store.insertion import insert_new
from service.store.lease import LET_GO
from service.store.pages import page
from service.store.tables import DatasetRow, JobRow, JobState, ModelRow


def submit(
    session: Session,
    *,
    model_id: str,
    dataset_id: str,
    request: dict[str, Any],
    name: str | None = None,
    labels: dict[str, Any] | None = None,
    priority: int = 0,
    max_attempts: int = 3,
) -> JobRow:
    """Queue a search.

    Args:
        request: a `search.config.SearchConfig` as JSON.
        priority: higher goes first.

    Raises:
        NotFoundError: there is no such model or dataset.
        NameTakenError: another job has this name.
    """
    # FOR KEY SHARE: neither can be deleted before the job is there.
    lock = {"read": True, "key_share": True}
    if session.get(ModelRow, model_id, with_for_update=lock, populate_existing=True) is None:
        raise NotFoundError("model", model_id)
    if session.get(DatasetRow, dataset_id, with_for_update=lock, populate_existing=True) is None:
        raise NotFoundError("dataset", dataset_id)
    row = insert_new(
        session,
        JobRow,
        ("name",),
        id=new_id("job"),
        name=name,
        labels=labels or {},
        model_id=model_id,
        dataset_id=dataset_id,
        request=request,
        priority=priority,
        state=JobState.QUEUED,
        conditions=[],
        progress={},
        max_attempts=max_attempts,
        created_at=clock.at(0),
        queued_at=clock.at(0),
        updated_at=clock.at(0),
    )
    if row is None:
        assert name is not None
        raise NameTakenError(name)
    events.append(session, row.id, "state", {"state": JobState.QUEUED})
    return row


def get(session: Session, job_id: str) -> JobRow:
    """Read one.

    Raises:
        NotFoundError: there is none.
    """
    row = session.get(JobRow, job_id)
    if row is None:
        raise NotFoundError("job", job_id)
    return row


def listed(
    session: Session,
    *,
    after: str | None = None,
    limit: int = 50,
    state: JobState | None = None,
    verdict: str | None = None,
    model_id: str | None = None,
) -> list[JobRow]:
    """One page of the jobs that match, newest first.

    Raises:
        CursorError: `after` is no job.
    """
    wanted = {"state": state, "verdict": verdict, "model_id": model_id}
    rows = select(JobRow).filter_by(**{k: v for k, v in wanted.items() if v is not None})
    return page(session, rows, key=JobRow.created_at, id_=JobRow.id, after=after, limit=limit)


def cancel(session: Session, job_id: str) -> JobRow:
    """End a search: at once if nobody works at it; else its worker is told to.

    A job that has ended is left as it is, and so is one whose worker has been told before.

    Raises:
        NotFoundError: there is none.
    """
    row = _locked(session, job_id)
    is_silent = row.lease_until is not None and row.lease_until < clock.now(session)
    if row.state is JobState.QUEUED or is_silent:
        row = _leave(session, row, state=JobState.CANCELLED, finished_at=clock.at(0), **LET_GO)
        events.append(session, job_id, "state", {"state": JobState.CANCELLED})
        events.append(session, job_id, "done", {"state": JobState.CANCELLED})
    elif row.state is JobState.RUNNING:
        row = _leave(session, row, state=JobState.CANCELLING)
        events.append(session, job_id, "state", {"state": JobState.CANCELLING})
    return row


def delete(session: Session, job_id: str) -> None:
    """Erase a search that has ended, with its candidates, events and artifacts.

    The files go with the next `garbage.collect`.

    Raises:
        NotFoundError: there is none.
        StateConflictError: it has not ended.
    """
    row = _locked(session, job_id)
    if not row.state.is_terminal:
        raise StateConflictError(job_id, row.state, "one that has ended (cancel it first)")
    session.execute(delete_from(JobRow).where(JobRow.id == job_id, JobRow.state == row.state))


def _locked(session: Session, job_id: str) -> JobRow:
    row = session.get(JobRow, job_id, with_for_update=True, populate_existing=True)
    if row is None:
        raise NotFoundError("job", job_id)
    return row


def _leave(session: Session, row: JobRow, **values: Any) -> JobRow:
    return session.scalars(
        update(JobRow)
        .where(JobRow.id == row.id, JobRow.state == row.state)
        .values(
            cancel_requested=True,
            updated_at=clock.at(0),
            version=JobRow.version + 1,
            **values,
        )
        .returning(JobRow),
        execution_options={"populate_existing": True},
    ).one()
