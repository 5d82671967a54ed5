"""The parameters in the paths of requests."""

from typing import Annotated

from annotated_types import Ge, Le, MaxLen
from pydantic import BaseModel, ConfigDict

from service.fields import Id, Name, Text, Verdict
from service.store.candidates import Sort
from service.store.tables import JobState


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
