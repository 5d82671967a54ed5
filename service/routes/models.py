"""Trained networks: an architecture's name and the file of its weights, or a program."""

from difflib import get_close_matches
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Depends, Query, Request, Response, status

from compress.catalog import ARCHITECTURES, PROGRAM
from service.deps import ReadDep, WriteDep
from service.erasure import erase_later
from service.fields import Id
from service.intake import count_parameters, count_program_parameters
from service.pages import page
from service.problems import ProblemError
from service.queries import ModelQuery, PageQuery
from service.schemas import ModelOut, Page
from service.store import clock, models
from service.store.blobs import BlobWriter
from service.uploads import RAW_BODY, upload_after

router = APIRouter(prefix="/models", tags=["models"])


def known_architecture(query: Annotated[ModelQuery, Query()]) -> ModelQuery:
    """Refuse a name that is not in the catalogue, before the weights are received.

    Raises:
        ProblemError: unsupported-architecture.
    """
    if query.architecture is not None and query.architecture not in ARCHITECTURES:
        if ":" in query.architecture:
            hint = (
                "code of your own runs on your machine alone: ranksearch compress PACKAGE:FACTORY"
            )
            raise _unsupported(query.architecture, hint)
        close = get_close_matches(query.architecture, ARCHITECTURES, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "/v1/capabilities lists them"
        raise _unsupported(query.architecture, hint)
    return query


def _unsupported(architecture: str, hint: str) -> ProblemError:
    return ProblemError(
        "unsupported-architecture",
        f"architecture {architecture!r} came, a name of the list was wanted: {hint}",
        errors=[{"parameter": "architecture", "in": "query", "detail": hint}],
    )


@router.post("", status_code=status.HTTP_201_CREATED, openapi_extra=RAW_BODY)
def upload_model(
    query: Annotated[ModelQuery, Depends(known_architecture)],
    file: Annotated[BlobWriter, upload_after(known_architecture)],
    session: WriteDep,
    response: Response,
) -> ModelOut:
    """Store a network; 200 and the one that is there if it is there already."""
    if query.architecture is None:
        architecture, parameters = PROGRAM, count_program_parameters(file.path)
    else:
        architecture, parameters = query.architecture, count_parameters(file.path)
    sha256 = file.commit()
    began = clock.now(session)
    row = models.add(
        session,
        name=query.name or architecture,
        architecture=architecture,
        sha256=sha256,
        size_bytes=file.size_bytes,
        parameters=parameters,
    )
    response.status_code = 201 if row.created_at >= began else 200
    response.headers["Location"] = f"/v1/models/{row.id}"
    return ModelOut.model_validate(row)


@router.get("")
def list_models(
    query: Annotated[PageQuery, Query()], session: ReadDep, request: Request, response: Response
) -> Page[ModelOut]:
    """Networks, newest first."""
    rows = models.listed(session, after=query.after, limit=query.limit + 1)
    return page(
        request,
        response,
        rows,
        limit=query.limit,
        show=ModelOut.model_validate,
        place=lambda row: row.id,
    )


@router.get("/{model_id}")
def read_model(model_id: Id, session: ReadDep) -> ModelOut:
    """One network."""
    return ModelOut.model_validate(models.get(session, model_id))


@router.delete("/{model_id}", status_code=status.HTTP_204_NO_CONTENT)
def delete_model(model_id: Id, session: WriteDep, request: Request, tasks: BackgroundTasks) -> None:
    """Erase a network and its file; 409 while a job refers to it."""
    models.delete(session, model_id)
    erase_later(request, tasks)
