"""Blobs that no row refers to any more."""

from sqlalchemy import select, union
from sqlalchemy.orm import Session

from service.store.blobs import Blobs
from service.store.tables import ArtifactRow, DatasetRow, JobRow, ModelRow


def collect(session: Session, blobs: Blobs, *, unused_seconds: float = 600.0) -> list[str]:
    """Remove the blobs that no row refers to.

    Never in the transaction that deletes their rows: that may still be rolled back.

    Args:
        session: a reading one will do.
        blobs: whatever is in there belongs to this database.
        unused_seconds: a blob put in since then may belong to a row that is not committed yet.

    Returns:
        The digests that were removed.
    """
    digests = list(blobs.digests())  # before the rows are read, lest one be added in between
    columns = (ModelRow.sha256, DatasetRow.sha256, ArtifactRow.sha256, JobRow.table_sha256)
    referenced = set(session.scalars(union(*(select(column) for column in columns))))
    return [
        digest
        for digest in digests
        if digest not in referenced and blobs.delete(digest, unused_seconds=unused_seconds)
    ]
