"""What goes in and out over HTTP. Of a job's order, `search.config` has the fields and limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar

from annotated_types import Ge, Le, MaxLen
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

from search.config import EstimationConfig, SearchConfig, StrategyConfig, WeightModes
from search.pareto import front
from service.store.candidates import Sort
from service.store.tables import ArtifactRow, CandidateRow, JobRow, JobState

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
# What no database refuses and no terminal obeys.
Text = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Name = Annotated[Text, StringConstraints(min_length=1)]
Verdict = Literal["budget_met", "budget_missed", "no_gain"]
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


class Query(BaseModel):
    """The parameters of a path; one that is not known is refused."""

    model_config = ConfigDict(extra="forbid")


class PageQuery(Query):
    """Where a page begins and how long it is."""

    after: Id | None = None
    limit: Annotated[int, Ge(1), Le(200)] = 50


class JobsQuery(PageQuery):
    """Which jobs."""

    state: JobState | None = None
    verdict: Verdict | None = None
    model: Id | None = None


class CandidatesQuery(PageQuery):
    """In which order: the newest first, or the lowest in one of the costs."""

    sort: Sort = "newest"


class EventsQuery(Query):
    """Which events: those after this number."""

    after: Annotated[int, Ge(0), Le(2**63 - 1)] = 0
    limit: Annotated[int, Ge(1), Le(200)] = 200


class ModelQuery(Query):
    """What a file of weights belongs to; a program (.pt2, .onnx) to nothing."""

    architecture: Name | None = None
    name: Name | None = None


class DatasetQuery(Query):
    """How the data of a file are to be read; `search.data.declaration` says what each means."""

    name: Name | None = None
    inputs: Text = "images"
    """Names of the arrays that the network takes, with commas between."""
    transforms: Annotated[str, MaxLen(2000)] = "[]"
    """JSON: [{"resize": 256}, {"center_crop": 224}]."""
    mean: str | None = None
    std: str | None = None


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
