"""Data to measure the loss on: arrays, pictures, or a set that the service brings along."""

import json
from copy import deepcopy
from typing import Annotated, Any, Final

from fastapi import APIRouter, BackgroundTasks, Depends, Query, Request, Response, status
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from search.data.declaration import Declaration
from search.data.transforms import read_transforms
from service.bodies import MAX_JSON_BYTES
from service.dataset_intake import describe, describe_builtin
from service.deps import ReadDep, SettingsDep, WriteDep
from service.erasure import erase_later
from service.fields import Id
from service.pages import page
from service.problems import ProblemError
from service.queries import DatasetQuery, PageQuery
from service.refusals import refusals
from service.schemas import BuiltinOrder, DatasetOut, Page
from service.store import clock, datasets
from service.store.blobs import BlobWriter
from service.uploads import RAW_BODY, upload_after

router = APIRouter(prefix="/datasets", tags=["datasets"])

BODY: Final = deepcopy(RAW_BODY)
BODY["requestBody"]["content"]["application/json"] = {"schema": BuiltinOrder.model_json_schema()}


def read_query(query: Annotated[DatasetQuery, Query()]) -> DatasetQuery:
    """The query, checked before the arrays are received."""
    return query


def read_order(
    query: Annotated[DatasetQuery, Depends(read_query)],
    file: Annotated[BlobWriter, upload_after(read_query)],
    request: Request,
    settings: SettingsDep,
) -> dict[str, Any]:
    """What the body describes, as the columns of a row.

    Raises:
        ProblemError: whatever is wrong with the arrays, or with the query.
        RequestValidationError: whatever is wrong with the JSON.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() == "application/json":
        order = _read_builtin(file)
        with refusals():
            declaration = Declaration.read(order.model_dump())
        return {
            "name": order.name or query.name or order.builtin,
            "builtin": order.builtin,
            "sha256": None,
            "size_bytes": 0,
            "description": describe_builtin(order.builtin, declaration),
        }
    description = describe(file.path, settings.max_upload_bytes, _declaration(query))
    return {
        "name": query.name or file.sha256[:12],
        "builtin": None,
        "sha256": file.commit(),
        "size_bytes": file.size_bytes,
        "description": description,
    }


@router.post("", status_code=status.HTTP_201_CREATED, openapi_extra=BODY)
def create_dataset(
    order: Annotated[dict[str, Any], Depends(read_order)], session: WriteDep, response: Response
) -> DatasetOut:
    """Store a dataset; 200 and the one that is there if an equal one is there already."""
    began = clock.now(session)
    row = datasets.add(session, **order)
    response.status_code = 201 if row.created_at >= began else 200
    response.headers["Location"] = f"/v1/datasets/{row.id}"
    return DatasetOut.model_validate(row)


@router.get("")
def list_datasets(
    query: Annotated[PageQuery, Query()], session: ReadDep, request: Request, response: Response
) -> Page[DatasetOut]:
    """Datasets, newest first."""
    rows = datasets.listed(session, after=query.after, limit=query.limit + 1)
    return page(
        request,
        response,
        rows,
        limit=query.limit,
        show=DatasetOut.model_validate,
        place=lambda r: r.id,
    )


@router.get("/{dataset_id}")
def read_dataset(dataset_id: Id, session: ReadDep) -> DatasetOut:
    """One dataset."""
    return DatasetOut.model_validate(datasets.get(session, dataset_id))


@router.delete("/{dataset_id}", status_code=status.HTTP_204_NO_CONTENT)
def delete_dataset(
    dataset_id: Id, session: WriteDep, request: Request, tasks: BackgroundTasks
) -> None:
    """Erase a dataset and its file; 409 while a job refers to it."""
    datasets.delete(session, dataset_id)
    erase_later(request, tasks)


def _read_builtin(file: BlobWriter) -> BuiltinOrder:
    document = None
    try:
        if file.size_bytes > MAX_JSON_BYTES:
            raise ValueError(f"at most {MAX_JSON_BYTES} bytes were wanted")
        document = json.loads(file.path.read_bytes())
        return BuiltinOrder.model_validate(document)
    except ValidationError as error:
        errors = [{**e, "loc": ("body", *e["loc"])} for e in error.errors(include_url=False)]
        raise RequestValidationError(errors, body=document) from error
    except (ValueError, RecursionError) as error:
        raise ProblemError("invalid-request", f"the body is no JSON: {error}") from error


def _declaration(query: DatasetQuery) -> Declaration:
    """What the parameters say of the arrays.

    Raises:
        ProblemError: invalid-request for what cannot be read, invalid-dataset for what cannot be
            meant.
    """
    with refusals():
        return Declaration(
            inputs=tuple(query.inputs.split(",")),
            transforms=read_transforms(_json("transforms", query.transforms)),
            mean=_numbers("mean", query.mean),
            std=_numbers("std", query.std),
        )


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable(name, text, "JSON was wanted", error) from error


def _numbers(name: str, text: str | None) -> tuple[float, ...] | None:
    try:
        return tuple(float(part) for part in text.split(",")) if text is not None else None
    except ValueError as error:
        raise _unreadable(name, text, "numbers with commas between were wanted", error) from error


def _unreadable(name: str, text: str | None, wanted: str, error: Exception) -> ProblemError:
    return ProblemError(
        "invalid-request",
        f"{name}={text} came, {wanted}",
        errors=[{"parameter": name, "in": "query", "detail": str(error)}],
    )
