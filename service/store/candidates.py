"""The plans that were evaluated for a job."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import ColumnElement, SQLColumnExpression, func, select
from sqlalchemy.orm import Session

from service.store import clock, events
from service.store.errors import NotFoundError
from service.store.ids import new_id
from service.store.insertion import insert_new
from service.store.lease import Lease, write
from service.store.pages import page
from service.store.tables import CandidateRow

Sort = Literal["newest", "cost", "loss", "latency", "macs", "parameters"]


def record(
    session: Session,
    lease: Lease,
    *,
    key: str,
    point: Sequence[int],
    plan: dict[str, Any],
    state: Literal["complete", "failed"],
    costs: dict[str, Any],
    measured: dict[str, Any],
    reason: str | None,
    seconds: float,
) -> CandidateRow:
    """Store an evaluation; the first one of a plan stands, and a second changes nothing.

    Args:
        key: digest of the plan.
        costs: a `search.strategy.Costs`, with None for NaN.

    Returns:
        The row that stands.

    Raises:
        LeaseLostError: nothing was written.
    """
    write(session, lease)  # the job is ours until the commit, so that the numbers have no gap
    mine = select(CandidateRow).filter_by(job_id=lease.job_id)
    last = select(func.coalesce(func.max(CandidateRow.sequence), 0)).filter_by(job_id=lease.job_id)
    row = insert_new(
        session,
        CandidateRow,
        ("job_id", "key"),
        id=new_id("cnd"),
        job_id=lease.job_id,
        key=key,
        sequence=last.scalar_subquery() + 1,
        point=list(point),
        plan=plan,
        state=state,
        costs=costs,
        measured=measured,
        reason=reason,
        attempt=lease.attempt,
        seconds=seconds,
        created_at=clock.at(0),
    )
    if row is None:
        return session.scalars(mine.filter_by(key=key)).one()
    told = {"candidate": row.id, "sequence": row.sequence, "state": state, "costs": costs}
    events.append(session, lease.job_id, "candidate", told)
    return row


def get(session: Session, candidate_id: str) -> CandidateRow:
    """Read one.

    Raises:
        NotFoundError: there is none.
    """
    row = session.get(CandidateRow, candidate_id)
    if row is None:
        raise NotFoundError("candidate", candidate_id)
    return row


def of_job(
    session: Session,
    job_id: str,
    *,
    after: str | None = None,
    limit: int = 50,
    sort: Sort = "newest",
) -> list[CandidateRow]:
    """One page: the newest first, or the best by one of the costs; failed ones come last then.

    Raises:
        CursorError: `after` is no candidate.
    """
    return page(
        session,
        select(CandidateRow).filter_by(job_id=job_id),
        key=_KEYS[sort],
        id_=CandidateRow.id,
        after=after,
        limit=limit,
        is_descending=sort == "newest",
    )


def all_of_job(session: Session, job_id: str) -> list[CandidateRow]:
    """All, in the order they were recorded: what a resumed search is told again."""
    rows = select(CandidateRow).filter_by(job_id=job_id).order_by(CandidateRow.sequence)
    return list(session.scalars(rows))


def counts(session: Session, job_id: str) -> dict[str, int]:
    """How many there are of each state."""
    rows = session.execute(
        select(CandidateRow.state, func.count())
        .filter_by(job_id=job_id)
        .group_by(CandidateRow.state)
    )
    return dict(rows.all())


def _cost(name: str) -> ColumnElement[float]:
    return func.coalesce(CandidateRow.costs[name].as_float(), 1e300)


_KEYS: Mapping[Sort, SQLColumnExpression[Any]] = {
    "newest": CandidateRow.sequence,
    "cost": _cost("cost"),
    "loss": _cost("loss"),
    "latency": _cost("time_share"),
    "macs": _cost("mac_share"),
    "parameters": _cost("parameter_share"),
}
