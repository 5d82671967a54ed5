"""The application: `create_app(settings)`, for uvicorn and for the tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Final

from fastapi import APIRouter, Depends, FastAPI

from service import problems
from service.auth import require_token
from service.request_id import RequestId
from service.routes import artifacts, candidates, datasets, events, health, jobs, models
from service.settings import Settings
from service.store.blobs import Blobs
from service.store.session import make_engine, make_sessions
from service.tokens import token_of

ANY_PROBLEM: Final[dict[int | str, dict[str, Any]]] = {
    "default": {
        "description": "A problem (RFC 9457); /v1/capabilities lists their codes",
        "content": {problems.MEDIA_TYPE: {"schema": problems.SCHEMA}},
    }
}


def create_app(settings: Settings) -> FastAPI:
    """Build the application; its database has been migrated before it serves."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = make_engine(settings.database)
        app.state.sessions = make_sessions(engine)
        yield
        engine.dispose()

    app = FastAPI(
        title="ranksearch",
        summary="The fastest factorised network that keeps your accuracy-loss budget.",
        version=version("ranksearch"),
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,  # an upload is not sent twice, nor where a Host header says
    )
    app.state.settings = settings
    app.state.blobs = Blobs(settings.blobs)
    app.state.token = token_of(settings) if settings.auth else None
    app.add_middleware(RequestId)
    problems.install(app)
    app.include_router(health.open_router, responses=ANY_PROBLEM)
    v1 = APIRouter(prefix="/v1", dependencies=[Depends(require_token)], responses=ANY_PROBLEM)
    for routes in (health, models, datasets, jobs, candidates, events, artifacts):
        v1.include_router(routes.router)
    app.include_router(v1)
    return app
