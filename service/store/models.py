"""Trained networks as they came."""

from sqlalchemy import delete as delete_from
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.store import clock
from service.store.errors import InUseError, NotFoundError
from service.store.ids import new_id
from service.store.insertion import insert_new
from service.store.pages import page
from service.store.tables import JobRow, ModelRow


def add(
    session: Session,
    *,
    name: str,
    architecture: str,
    sha256: str,
    size_bytes: int,
    parameters: int | None,
) -> ModelRow:
    """Store a network, or return the one that has this architecture and these weights already."""
    same = select(ModelRow).filter_by(architecture=architecture, sha256=sha256)
    while True:  # again, should the one that is there be deleted before it is read
        row = (
            insert_new(
                session,
                ModelRow,
                ("architecture", "sha256"),
                id=new_id("mod"),
                name=name,
                architecture=architecture,
                sha256=sha256,
                size_bytes=size_bytes,
                parameters=parameters,
                created_at=clock.at(0),
            )
            or session.scalars(same).one_or_none()
        )
        if row is not None:
            return row


def get(session: Session, model_id: str) -> ModelRow:
    """Read one.

    Raises:
        NotFoundError: there is none.
    """
    row = session.get(ModelRow, model_id)
    if row is None:
        raise NotFoundError("model", model_id)
    return row


def listed(session: Session, *, after: str | None = None, limit: int = 50) -> list[ModelRow]:
    """One page, newest first.

    Raises:
        CursorError: `after` is no model.
    """
    rows = select(ModelRow)
    return page(session, rows, key=ModelRow.created_at, id_=ModelRow.id, after=after, limit=limit)


def delete(session: Session, model_id: str) -> None:
    """Erase one; its file goes with the next `garbage.collect`.

    Raises:
        NotFoundError: there is none.
        InUseError: a job refers to it.
    """
    # The lock keeps a job from being submitted for it between the look and the deletion.
    if session.get(ModelRow, model_id, with_for_update=True, populate_existing=True) is None:
        raise NotFoundError("model", model_id)
    job_id = session.scalar(select(JobRow.id).filter_by(model_id=model_id).limit(1))
    if job_id is not None:
        raise InUseError("model", model_id, job_id)
    session.execute(delete_from(ModelRow).filter_by(id=model_id))
