"""Rows to begin with, and a way to grow old at once."""

import itertools
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from service.store import clock, datasets, jobs, models
from service.store.lease import Lease, claim
from service.store.tables import DatasetRow, JobRow, ModelRow

_numbers = itertools.count()


def add_model(session: Session, sha256: str | None = None) -> ModelRow:
    return models.add(
        session,
        name="a network",
        architecture="resnet8",
        sha256=sha256 or f"{next(_numbers):064x}",
        size_bytes=10,
        parameters=2,
    )


def add_dataset(session: Session) -> DatasetRow:
    return datasets.add(
        session, name="digits", builtin="digits", sha256=None, size_bytes=0, description={}
    )


def submit(session: Session, **options: Any) -> JobRow:
    """Queue a job for a model of its own."""
    options = {"request": {"budget": {"max_loss": 0.5}}, **options}
    model_id = options.pop("model_id", None) or add_model(session).id
    dataset_id = options.pop("dataset_id", None) or add_dataset(session).id
    return jobs.submit(session, model_id=model_id, dataset_id=dataset_id, **options)


def held(session: Session, **options: Any) -> Lease:
    """A job that is running, and the lease of the one that runs it."""
    submit(session, **options)
    lease = claim(session, "worker", 60)
    assert lease is not None
    return lease


def fall_silent(session: Session, job_id: str) -> None:
    """Let the lease of a job run out."""
    session.execute(update(JobRow).filter_by(id=job_id).values(lease_until=clock.at(-1)))


def reread(session: Session, job_id: str) -> JobRow:
    row = session.get(JobRow, job_id, populate_existing=True)
    assert row is not None
    return row
