"""Every plan that a search has evaluated."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.deps import ReadDep
from service.fields import Id
from service.pages import page
from service.queries import CandidatesQuery
from service.schemas import CandidateOut, FrontPointOut, Page
from service.store import candidates, jobs

router = APIRouter(tags=["candidates"])


@router.get("/jobs/{job_id}/candidates")
def list_candidates(
    job_id: Id,
    query: Annotated[CandidatesQuery, Query()],
    session: ReadDep,
    request: Request,
    response: Response,
) -> Page[CandidateOut]:
    """Candidates of a job: newest first, or by one of their costs, the lowest first."""
    jobs.get(session, job_id)
    rows = candidates.of_job(
        session, job_id, after=query.after, limit=query.limit + 1, sort=query.sort
    )
    return page(
        request,
        response,
        rows,
        limit=query.limit,
        show=CandidateOut.model_validate,
        place=lambda r: r.id,
    )


@router.get("/jobs/{job_id}/pareto")
def list_front(job_id: Id, session: ReadDep) -> Page[FrontPointOut]:
    """What no other candidate beats in loss and cost, dense among them; there are few."""
    jobs.get(session, job_id)
    rows = candidates.all_of_job(session, job_id)
    return Page(data=FrontPointOut.front(rows), has_more=False, next=None)
