"""What happened to a job, in order."""

from typing import Any, Literal

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from service.store import clock
from service.store.errors import NotFoundError
from service.store.tables import EventRow, JobRow

EventType = Literal[
    "state", "phase", "progress", "candidate", "best", "warning", "artifact", "done"
]


def append(session: Session, job_id: str, type: EventType, payload: dict[str, Any]) -> None:  # noqa: A002
    """Add an event.

    Raises:
        NotFoundError: there is no such job.
    """
    # With the job's row held until the commit, the events of a job become visible in the order of
    # their numbers: a reader who has seen one has seen all before it.
    if session.scalar(select(JobRow.id).filter_by(id=job_id).with_for_update()) is None:
        raise NotFoundError("job", job_id)
    session.execute(
        insert(EventRow).values(job_id=job_id, type=type, payload=payload, at=clock.at(0))
    )


def of_job(session: Session, job_id: str, *, after: int = 0, limit: int = 200) -> list[EventRow]:
    """The events of a job that follow the number `after`, oldest first."""
    return list(
        session.scalars(
            select(EventRow)
            .where(EventRow.job_id == job_id, EventRow.sequence > after)
            .order_by(EventRow.sequence)
            .limit(limit)
        )
    )
