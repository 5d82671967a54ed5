"""Arrays as they came, and the built-in sets that jobs have named."""

import hashlib
import json
from typing import Any

from sqlalchemy import delete as delete_from
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.store import clock
from service.store.errors import InUseError, NotFoundError
from service.store.ids import new_id
from service.store.insertion import insert_new
from service.store.pages import page
from service.store.tables import DatasetRow, JobRow


def add(
    session: Session,
    *,
    name: str,
    builtin: str | None,
    sha256: str | None,
    size_bytes: int,
    description: dict[str, Any],
) -> DatasetRow:
    """Store a dataset, or return the equal one that is there already.

    Equal are those with the same file, or the same built-in name, and the same description; what
    they are called does not count.
    """
    content = {"builtin": builtin, "sha256": sha256, "description": description}
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    digest = hashlib.sha256(text.encode()).hexdigest()
    while True:  # again, should the one that is there be deleted before it is read
        row = (
            insert_new(
                session,
                DatasetRow,
                ("digest",),
                id=new_id("dat"),
                name=name,
                builtin=builtin,
                sha256=sha256,
                size_bytes=size_bytes,
                description=description,
                digest=digest,
                created_at=clock.at(0),
            )
            or session.scalars(select(DatasetRow).filter_by(digest=digest)).one_or_none()
        )
        if row is not None:
            return row


def get(session: Session, dataset_id: str) -> DatasetRow:
    """Read one.

    Raises:
        NotFoundError: there is none.
    """
    row = session.get(DatasetRow, dataset_id)
    if row is None:
        raise NotFoundError("dataset", dataset_id)
    return row


def listed(session: Session, *, after: str | None = None, limit: int = 50) -> list[DatasetRow]:
    """One page, newest first.

    Raises:
        CursorError: `after` is no dataset.
    """
    rows = select(DatasetRow)
    return page(
        session, rows, key=DatasetRow.created_at, id_=DatasetRow.id, after=after, limit=limit
    )


def delete(session: Session, dataset_id: str) -> None:
    """Erase one; its file goes with the next `garbage.collect`.

    Raises:
        NotFoundError: there is none.
        InUseError: a job refers to it.
    """
    # The lock keeps a job from being submitted for it between the look and the deletion.
    if session.get(DatasetRow, dataset_id, with_for_update=True, populate_existing=True) is None:
        raise NotFoundError("dataset", dataset_id)
    job_id = session.scalar(select(JobRow.id).filter_by(dataset_id=dataset_id).limit(1))
    if job_id is not None:
        raise InUseError("dataset", dataset_id, job_id)
    session.execute(delete_from(DatasetRow).filter_by(id=dataset_id))
