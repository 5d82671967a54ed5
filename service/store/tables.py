"""The rows: models, datasets, jobs, candidates, artifacts, events, idempotency keys."""

import enum
from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Enum,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}

Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
Sequence = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts up integers alone


class Moment(TypeDecorator[datetime]):
    """A point in time, UTC and aware on every database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002, the base class's signature
    ) -> datetime | None:
        return value if value is None else value.astimezone(UTC)

    def process_result_value(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002, the base class's signature
    ) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class JobState(enum.StrEnum):
    """What a client may branch on; the phase inside `running` may grow."""

    QUEUED = "queued"  # waits for a worker
    RUNNING = "running"  # a worker holds the lease
    CANCELLING = "cancelling"  # a worker holds the lease and has been told to stop
    SUCCEEDED = "succeeded"  # there is a verdict
    FAILED = "failed"  # there is a reason
    CANCELLED = "cancelled"  # the best so far is kept
    EXPIRED = "expired"  # its deadline passed before it started
    PAUSING = "pausing"
    PAUSED = "paused"

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})
LEASED = frozenset({JobState.RUNNING, JobState.CANCELLING})


class Base(DeclarativeBase):
    """The root of all tables."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar = {dict[str, Any]: Json, list[Any]: Json, datetime: Moment()}


class ModelRow(Base):
    """A trained network as it came: an architecture's name and the digest of its weights."""

    __tablename__ = "models"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    architecture: Mapped[str] = mapped_column(String(100))
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    parameters: Mapped[int | None] = mapped_column(BigInteger)
    """None where only a pickle says, which nobody has opened yet, and of an ONNX file."""
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("architecture", "sha256"), Index(None, "created_at"))


class DatasetRow(Base):
    """Arrays as they came (the digest of their file), or the name of a built-in set."""

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    builtin: Mapped[str | None] = mapped_column(String(40))
    sha256: Mapped[str | None] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    # What the arrays hold: form, count, shape, dtype, classes, mean and std, and the digest of
    # all this, which tells equal datasets apart from those that only share their file.
    description: Mapped[dict[str, Any]]
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime]

    __table_args__ = (Index(None, "created_at"),)


class JobRow(Base):
    """One search, from the order to the verdict."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str | None] = mapped_column(String(200), unique=True)
    labels: Mapped[dict[str, Any]]
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    request: Mapped[dict[str, Any]]  # search.config.SearchConfig as JSON
    priority: Mapped[int] = mapped_column(default=0)  # higher goes first

    state: Mapped[JobState] = mapped_column(
        Enum(JobState, native_enum=False, length=20, values_callable=lambda e: [s.value for s in e])
    )
    phase: Mapped[str | None] = mapped_column(String(20))
    verdict: Mapped[str | None] = mapped_column(String(20))
    stopped_by: Mapped[str | None] = mapped_column(String(20))
    reason: Mapped[dict[str, Any] | None] = mapped_column(Json)
    conditions: Mapped[list[Any]]
    progress: Mapped[dict[str, Any]]
    baseline: Mapped[dict[str, Any] | None] = mapped_column(Json)
    best: Mapped[dict[str, Any] | None] = mapped_column(Json)
    table_sha256: Mapped[str | None] = mapped_column(String(64))  # blob of the choice table

    attempt: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int] = mapped_column(default=3)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    lease_owner: Mapped[str | None] = mapped_column(String(100))
    lease_token: Mapped[str | None] = mapped_column(String(40))
    lease_until: Mapped[datetime | None]

    version: Mapped[int] = mapped_column(default=1)  # counts changes; the job's ETag
    created_at: Mapped[datetime]
    queued_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    updated_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        Index(None, "state", "priority", "queued_at"),
        Index(None, "created_at"),
    )


class CandidateRow(Base):
    """A plan that was evaluated for a job; never evaluated a second time."""

    __tablename__ = "candidates"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    key: Mapped[str] = mapped_column(String(64))  # digest of the plan
    sequence: Mapped[int]
    point: Mapped[list[Any]]
    plan: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(20))  # complete, failed
    costs: Mapped[dict[str, Any]]  # search.strategy.Costs; NaN is null
    measured: Mapped[dict[str, Any]]  # what the payload shows: loss, latency, speedup, ...
    reason: Mapped[str | None] = mapped_column(Text)
    attempt: Mapped[int]
    seconds: Mapped[float]
    created_at: Mapped[datetime]

    __table_args__ = (
        UniqueConstraint("job_id", "key"),
        UniqueConstraint("job_id", "sequence"),
    )


class ArtifactRow(Base):
    """A file of a job's result, by the digest of its blob."""

    __tablename__ = "artifacts"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(100))
    media_type: Mapped[str] = mapped_column(String(100))
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("job_id", "name"),)


class EventRow(Base):
    """What happened to a job, in order; the sequence number lets a reader resume."""

    __tablename__ = "events"

    sequence: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    type: Mapped[str] = mapped_column(String(20))
    payload: Mapped[dict[str, Any]]
    at: Mapped[datetime]

    __table_args__ = (Index(None, "job_id", "sequence"),)


class IdempotencyRow(Base):
    """The answer once given to a key, kept with what it created in one transaction."""

    __tablename__ = "idempotency_keys"

    scope: Mapped[str] = mapped_column(String(200), primary_key=True)  # caller, method and path
    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    body_sha256: Mapped[str] = mapped_column(String(64))
    status: Mapped[int]
    headers: Mapped[dict[str, Any]]
    body: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
