"""What happens to a job: a page at a time, or as it happens."""

from collections.abc import AsyncIterator
from typing import Annotated, Final

import anyio
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session, sessionmaker
from starlette.concurrency import run_in_threadpool

from service.deps import ReadDep, SettingsDep
from service.fields import Id
from service.pages import page
from service.problems import ProblemError
from service.queries import EventsQuery
from service.schemas import EventOut, Page
from service.store import events, jobs
from service.store.errors import NotFoundError
from service.store.session import reading

router = APIRouter(tags=["events"])

RECONNECT_MS: Final = 3000
HEARTBEAT_SECONDS: Final = 15.0
BATCH: Final = 200


@router.get("/jobs/{job_id}/events", response_model=Page[EventOut])
def read_events(
    *,
    job_id: Id,
    query: Annotated[EventsQuery, Query()],
    session: ReadDep,
    settings: SettingsDep,
    request: Request,
    response: Response,
    accept: Annotated[str, Header()] = "",
    last_event_id: Annotated[str | None, Header()] = None,
) -> Page[EventOut] | Response:
    """Events after a number, oldest first; with `Accept: text/event-stream` also those to come.

    The stream ends with the job; whoever asks again for what follows gets 204, at which a
    browser's EventSource stops.
    """
    job = jobs.get(session, job_id)
    after = query.after if last_event_id is None else _number(last_event_id)
    rows = events.of_job(session, job_id, after=after, limit=query.limit + 1)
    if "text/event-stream" not in accept:
        return page(
            request,
            response,
            rows,
            limit=query.limit,
            show=EventOut.model_validate,
            place=lambda r: str(r.sequence),
        )
    if job.state.is_terminal and not rows:
        return Response(status_code=204)
    return StreamingResponse(
        follow(request.app.state.sessions, job_id, after, settings.poll_seconds),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def follow(
    sessions: sessionmaker[Session], job_id: str, after: int, poll_seconds: float
) -> AsyncIterator[str]:
    """Tell the events of a job after a number, until it has ended and all are told.

    Async: between two looks, each a short transaction in a thread, a reader costs nothing.
    """
    yield f"retry: {RECONNECT_MS}\n\n"
    spoken = anyio.current_time()
    while True:
        told, is_last = await run_in_threadpool(_look, sessions, job_id, after)
        for event in told:
            yield f"id: {event.sequence}\nevent: {event.type}\ndata: {event.model_dump_json()}\n\n"
            after, spoken = event.sequence, anyio.current_time()
        if is_last:
            return
        if anyio.current_time() - spoken >= HEARTBEAT_SECONDS:
            yield ": heartbeat\n\n"
            spoken = anyio.current_time()
        if len(told) < BATCH:
            await anyio.sleep(poll_seconds)


def _look(sessions: sessionmaker[Session], job_id: str, after: int) -> tuple[list[EventOut], bool]:
    """What follows a number, and whether nothing can follow that; one state of the database."""
    with reading(sessions) as session:
        try:
            has_ended = jobs.get(session, job_id).state.is_terminal
        except NotFoundError:  # deleted while it was followed
            return [], True
        rows = events.of_job(session, job_id, after=after, limit=BATCH)
        return [EventOut.model_validate(row) for row in rows], has_ended and len(rows) < BATCH


def _number(last_event_id: str) -> int:
    if not (last_event_id.isascii() and last_event_id.isdecimal() and len(last_event_id) <= 18):
        raise ProblemError(
            "invalid-cursor",
            f"Last-Event-ID {last_event_id!r} came, the id of an event was wanted",
        )
    return int(last_event_id)
