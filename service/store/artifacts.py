"""The files of a job's result."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from service.store import clock, events
from service.store.errors import NotFoundError
from service.store.ids import new_id
from service.store.lease import Lease, write
from service.store.tables import ArtifactRow


class File(NamedTuple):
    """A file that is in the blobs already."""

    name: str
    media_type: str
    sha256: str
    size_bytes: int


def publish(
    session: Session, lease: Lease, files: Sequence[tuple[str, str, str, int]]
) -> list[ArtifactRow]:
    """Make these files, `File`s or such tuples, the job's result in place of what it had.

    Raises:
        LeaseLostError: nothing was written.
    """
    write(session, lease)
    session.execute(delete(ArtifactRow).filter_by(job_id=lease.job_id))
    rows = []
    for file in map(File._make, files):
        row = session.scalars(
            insert(ArtifactRow)
            .values(id=new_id("art"), job_id=lease.job_id, created_at=clock.at(0), **file._asdict())
            .returning(ArtifactRow)
        ).one()
        events.append(session, lease.job_id, "artifact", {"artifact": row.id, **file._asdict()})
        rows.append(row)
    return rows


def of_job(session: Session, job_id: str) -> list[ArtifactRow]:
    """All of a job, by name."""
    rows = select(ArtifactRow).filter_by(job_id=job_id).order_by(ArtifactRow.name)
    return list(session.scalars(rows))


def get(session: Session, artifact_id: str) -> ArtifactRow:
    """Read one.

    Raises:
        NotFoundError: there is none.
    """
    row = session.get(ArtifactRow, artifact_id)
    if row is None:
        raise NotFoundError("artifact", artifact_id)
    return row
