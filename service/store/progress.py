"""What the process of a job tells of its way. Every write is fenced by the lease."""

from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.store import clock, events
from service.store.lease import Lease, write
from service.store.tables import JobRow


def phase(session: Session, lease: Lease, name: str) -> None:
    """Enter a phase.

    Raises:
        LeaseLostError: nothing was written.
    """
    write(session, lease, phase=name)
    events.append(session, lease.job_id, "phase", {"phase": name})


def progress(session: Session, lease: Lease, values: dict[str, Any]) -> None:
    """Tell how far the job has come; the caller keeps to about one a second.

    Raises:
        LeaseLostError: nothing was written.
    """
    write(session, lease, progress=values)
    events.append(session, lease.job_id, "progress", values)


def baseline(session: Session, lease: Lease, values: dict[str, Any]) -> None:
    """Store what the dense network is worth on this device.

    Raises:
        LeaseLostError: nothing was written.
    """
    write(session, lease, baseline=values)


def best(session: Session, lease: Lease, values: dict[str, Any]) -> None:
    """Store the best candidate so far.

    Raises:
        LeaseLostError: nothing was written.
    """
    write(session, lease, best=values)
    events.append(session, lease.job_id, "best", values)


def table(session: Session, lease: Lease, sha256: str) -> None:
    """Store the digest of the choice table's blob.

    Raises:
        LeaseLostError: nothing was written.
    """
    write(session, lease, table_sha256=sha256)


def condition(
    session: Session,
    lease: Lease,
    *,
    type: str,  # noqa: A002
    status: Literal["true", "false", "unknown"],
    reason: str,
    message: str = "",
) -> None:
    """Set one of the job's conditions; there is one of each type, in the order they came.

    Raises:
        LeaseLostError: nothing was written.
    """
    write(session, lease)  # the row is ours from here on, so that none is lost in between
    at = clock.now(session).isoformat()
    new = {"type": type, "status": status, "reason": reason, "message": message, "at": at}
    old: list[dict[str, Any]] = session.scalars(
        select(JobRow.conditions).where(JobRow.id == lease.job_id)
    ).one()
    by_type = {condition["type"]: condition for condition in old} | {type: new}
    write(session, lease, conditions=list(by_type.values()))
