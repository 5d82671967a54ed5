"""Searches: ordered, watched, cancelled, erased."""

from typing import Annotated, Final

from fastapi import APIRouter, BackgroundTasks, Query, Request, Response, status
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from search.config import UNLABELLED
from service.bodies import ShortRoute
from service.deps import ReadDep, SettingsDep, WriteDep
from service.erasure import erase_later
from service.etags import IfNoneMatch, is_unchanged
from service.fields import Id
from service.idempotent import OnceDep
from service.pages import page
from service.problems import ProblemError
from service.queries import JobsQuery
from service.schemas import JobOrder, JobOut, Page
from service.store import candidates, datasets, jobs
from service.store.tables import JobRow

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=ShortRoute)

RETRY_SECONDS: Final = 2


@router.post("", status_code=status.HTTP_202_ACCEPTED, response_model=JobOut)
def submit_job(
    order: JobOrder, once: OnceDep, session: WriteDep, settings: SettingsDep
) -> JSONResponse:
    """Queue a rank search."""

    def submit() -> JSONResponse:
        _check_labels(session, order)
        row = jobs.submit(
            session,
            model_id=order.model,
            dataset_id=order.dataset,
            request=order.stored,
            name=order.name,
            labels=dict(order.labels),
            priority=order.priority,
            max_attempts=settings.max_attempts,
        )
        return _accepted(session, row)

    return once.answer(session, submit)


@router.get("")
def list_jobs(
    query: Annotated[JobsQuery, Query()], session: ReadDep, request: Request, response: Response
) -> Page[JobOut]:
    """Jobs that match, newest first."""
    rows = jobs.listed(
        session,
        after=query.after,
        limit=query.limit + 1,
        state=query.state,
        verdict=query.verdict,
        model_id=query.model,
    )
    return page(
        request,
        response,
        rows,
        limit=query.limit,
        show=lambda row: _shown(session, row),
        place=lambda row: row.id,
    )


@router.get("/{job_id}", response_model=JobOut)
def read_job(
    job_id: Id, session: ReadDep, response: Response, if_none_match: IfNoneMatch = None
) -> JobOut | Response:
    """State of a search; 304 while it is the state that the client has."""
    row = jobs.get(session, job_id)
    headers = _headers(row)
    if is_unchanged(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return _shown(session, row)


@router.post("/{job_id}/cancel", status_code=status.HTTP_202_ACCEPTED, response_model=JobOut)
def cancel_job(job_id: Id, session: WriteDep) -> JSONResponse:
    """End a search; the best so far is kept. One that has ended is left as it is."""
    return _accepted(session, jobs.cancel(session, job_id))


@router.delete("/{job_id}", status_code=status.HTTP_204_NO_CONTENT)
def delete_job(job_id: Id, session: WriteDep, request: Request, tasks: BackgroundTasks) -> None:
    """Erase a search that has ended, with its candidates, events and artifacts."""
    jobs.delete(session, job_id)
    erase_later(request, tasks)


def _check_labels(session: Session, order: JobOrder) -> None:
    metric = order.budget.metric
    if metric in UNLABELLED or datasets.get(session, order.dataset).description["has_labels"]:
        return
    raise ProblemError(
        "labels-missing",
        f"metric {metric} came for a dataset without labels: send labels with the images, or "
        f"take one of {', '.join(UNLABELLED)}, which compare with the dense network",
        errors=[{"pointer": "/budget/metric", "code": "labels-missing", "detail": metric}],
    )


def _shown(session: Session, row: JobRow) -> JobOut:
    return JobOut.of(row, candidates.counts(session, row.id))


def _headers(row: JobRow) -> dict[str, str]:
    """The version counts every change of what is shown."""
    headers = {"ETag": f'"{row.id}-{row.version}"', "Cache-Control": "private, no-cache"}
    if not row.state.is_terminal:
        headers["Retry-After"] = str(RETRY_SECONDS)
    return headers


def _accepted(session: Session, row: JobRow) -> JSONResponse:
    headers = {**_headers(row), "Location": f"/v1/jobs/{row.id}"}
    return JSONResponse(_shown(session, row).model_dump(mode="json"), 202, headers)
