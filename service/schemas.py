"""What goes in and out over HTTP. Of a job's order, `search.config` has the fields and limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar

from annotated_types import Ge, Le, MaxLen
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from search.config import EstimationConfig, SearchConfig, StrategyConfig, WeightModes
from search.pareto import front
from service.fields import Id, Name, Text
from service.store.tables import ArtifactRow, CandidateRow, JobRow, JobState

Item = TypeVar("Item")

_stored = TypeAdapter(SearchConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOrder(SearchConfig):
    """A job's order: a search configuration and what it is to work on."""

    # The nested dataclasses, which know nothing of pydantic, are read by the same rules.
    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", allow_inf_nan=False)

    model: Id
    dataset: Id
    exclude: Annotated[tuple[Name, ...], MaxLen(1000)] = ()
    modes: Annotated[tuple[WeightModes, ...], MaxLen(1000)] = ()
    search: Annotated[StrategyConfig, Field(discriminator="strategy")] = field(
        default_factory=EstimationConfig
    )
    name: Name | None = None
    labels: Annotated[dict[Name, Text], MaxLen(32)] = field(default_factory=dict)
    priority: Annotated[int, Ge(-100), Le(100)] = 0

    @property
    def stored(self) -> dict[str, Any]:
        """The search configuration alone, as JSON."""
        names = [f.name for f in fields(SearchConfig)]
        config = SearchConfig(**{name: getattr(self, name) for name in names})
        stored: dict[str, Any] = _stored.dump_python(config, mode="json")
        return stored


class BuiltinOrder(BaseModel):
    """A dataset that the service brings along."""

    model_config = ConfigDict(extra="forbid")

    builtin: Literal["digits", "mnist", "cifar10"]
    name: Name | None = None
    transforms: Annotated[list[dict[str, Any]], MaxLen(8)] = Field(default_factory=list)
    mean: Annotated[list[float], MaxLen(16)] | None = None
    std: Annotated[list[float], MaxLen(16)] | None = None


class Page(BaseModel, Generic[Item]):
    """One page; `next` is the `after` of the following one."""

    data: list[Item]
    has_more: bool
    next: str | None


class ModelOut(BaseModel):
    """A trained network as it came."""

    model_config = ConfigDict(from_attributes=True)

    object: Literal["model"] = "model"
    id: str
    name: str
    architecture: str
    parameters: int | None
    sha256: str
    size_bytes: int
    created_at: datetime


class DatasetOut(BaseModel):
    """Arrays as they came, or a built-in set."""

    model_config = ConfigDict(from_attributes=True)

    object: Literal["dataset"] = "dataset"
    id: str
    name: str
    builtin: str | None
    description: dict[str, Any]
    sha256: str | None
    size_bytes: int
    created_at: datetime


class JobOut(BaseModel):
    """A job: branch on `state` and `verdict`; `phase` may get new values."""

    object: Literal["job"] = "job"
    id: str
    name: str | None
    labels: dict[str, str]
    priority: int
    state: JobState
    phase: str | None
    attempt: int
    max_attempts: int
    verdict: str | None
    stopped_by: str | None
    reason: dict[str, Any] | None
    conditions: list[dict[str, Any]]
    request: dict[str, Any]
    progress: dict[str, Any]
    counts: dict[str, int]
    baseline: dict[str, Any] | None
    best: dict[str, Any] | None
    created_at: datetime
    queued_at: datetime
    started_at: datetime | None
    updated_at: datetime
    finished_at: datetime | None
    links: dict[str, str]

    @classmethod
    def of(cls, row: JobRow, counts: Mapping[str, int]) -> Self:
        """A row and how many candidates of each state it has."""
        path = f"/v1/jobs/{row.id}"
        own = {"request", "counts", "links", "object"}
        return cls(
            request={"model": row.model_id, "dataset": row.dataset_id, **row.request},
            counts={"complete": 0, "failed": 0, **counts},
            links={
                "self": path,
                **{
                    n: f"{path}/{n}"
                    for n in ("events", "candidates", "pareto", "artifacts", "cancel")
                },
                "model": f"/v1/models/{row.model_id}",
                "dataset": f"/v1/datasets/{row.dataset_id}",
            },
            **{name: getattr(row, name) for name in cls.model_fields.keys() - own},
        )


class CandidateOut(BaseModel):
    """A plan that was evaluated; of its costs lower is better, and null means that it failed."""

    model_config = ConfigDict(from_attributes=True)

    object: Literal["candidate"] = "candidate"
    id: str
    job_id: str
    sequence: int
    state: str
    point: list[int]
    plan: dict[str, Any]
    costs: dict[str, float | None]
    measured: dict[str, Any]
    reason: str | None
    attempt: int
    seconds: float
    created_at: datetime


class FrontPointOut(BaseModel):
    """A candidate that no other beats in loss and cost, or the dense network, whose id is null.

    Shares are of the dense network's; the loss is the metric's own, a share where counted.
    """

    object: Literal["front_point"] = "front_point"
    candidate: str | None
    plan: dict[str, Any]
    loss: float
    is_feasible: bool
    cost: float
    time_share: float
    mac_share: float | None
    parameter_share: float

    @classmethod
    def front(cls, rows: Sequence[CandidateRow]) -> list[Self]:
        """Of a job's candidates and dense those that no other beats, by rising loss."""
        complete = (row for row in rows if row.state == "complete")
        points = [cls.of_dense(), *(cls.of_candidate(row) for row in complete)]
        return front(points, lambda point: (point.loss, point.cost))

    @classmethod
    def of_candidate(cls, row: CandidateRow) -> Self:
        """One that was evaluated."""
        return cls(
            candidate=row.id,
            plan=row.plan,
            is_feasible=row.costs["violation"] is not None and row.costs["violation"] <= 0,
            **{name: row.costs[name] for name in cls.model_fields.keys() & row.costs.keys()},
        )

    @classmethod
    def of_dense(cls) -> Self:
        """The dense network, which every budget allows."""
        return cls(
            candidate=None,
            plan={"version": 1, "layers": {}},
            loss=0.0,
            is_feasible=True,
            cost=1.0,
            time_share=1.0,
            mac_share=1.0,
            parameter_share=1.0,
        )


class ArtifactOut(BaseModel):
    """A file of a job's result."""

    object: Literal["artifact"] = "artifact"
    id: str
    job_id: str
    name: str
    media_type: str
    sha256: str
    size_bytes: int
    created_at: datetime
    links: dict[str, str]

    @classmethod
    def of(cls, row: ArtifactRow) -> Self:
        """A row with the path of its content."""
        own = {"links", "object"}
        return cls(
            links={"content": f"/v1/artifacts/{row.id}/content", "job": f"/v1/jobs/{row.job_id}"},
            **{name: getattr(row, name) for name in cls.model_fields.keys() - own},
        )


class EventOut(BaseModel):
    """What happened to a job; the sequence number is the `after` of what follows."""

    model_config = ConfigDict(from_attributes=True)

    sequence: int
    job_id: str
    type: str
    payload: dict[str, Any]
    at: datetime


class CapabilitiesOut(BaseModel):
    """What this service takes and does."""

    version: str
    architectures: list[str]
    methods: list[str]
    objectives: list[str]
    strategies: list[str]
    metrics: list[str]
    units: list[str]
    datasets: dict[str, dict[str, Any]]
    limits: dict[str, int]
    states: list[str]
    problems: dict[str, dict[str, Any]]
