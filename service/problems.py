"""Every error as application/problem+json (RFC 9457): one stable type for each cause.

`detail` says what came, what was wanted and what to do. Nothing of the program is shown: what is
unexpected is logged under the request's id, and the client gets that id.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from service.store.errors import (
    ConflictError,
    CursorError,
    IdempotencyReusedError,
    InUseError,
    LeaseLostError,
    NameTakenError,
    NotFoundError,
    StateConflictError,
    StoreError,
)

MEDIA_TYPE: Final = "application/problem+json"
TYPE: Final = "urn:ranksearch:problem:"

# A file or an order may hold names and mistakes without number; the answer stays readable.
MAX_DETAIL: Final = 2000
MAX_ERRORS: Final = 20

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kind:
    """One cause. Retryable: the very same request may succeed later."""

    status: int
    title: str
    retryable: bool = False


KINDS: Final[dict[str, Kind]] = {
    "invalid-request": Kind(422, "The request is not what the description asks for"),
    "invalid-cursor": Kind(400, "No such place in this list"),
    "budget-unit-missing": Kind(422, "A loss needs its unit"),
    "labels-missing": Kind(422, "The metric needs labels that the dataset does not have"),
    "unsupported-architecture": Kind(422, "No such architecture"),
    "unsupported-program": Kind(422, "The program is damaged, or calls what is not read"),
    "unsafe-file": Kind(422, "The file is of a kind that is never opened"),
    "malformed-file": Kind(422, "The file is damaged or breaks its format"),
    "not-finite": Kind(422, "The file holds values that are no numbers"),
    "invalid-dataset": Kind(422, "The arrays are no dataset"),
    "dataset-too-small": Kind(422, "Too few samples to search and to confirm with"),
    "checksum-mismatch": Kind(422, "What arrived is not what was sent"),
    "unsupported-encoding": Kind(415, "The body is encoded"),
    "file-too-large": Kind(413, "The body is too large"),
    "storage-full": Kind(507, "No space is left to keep the file", retryable=True),
    "unauthenticated": Kind(401, "The request carries no valid token"),
    "not-found": Kind(404, "There is no such thing"),
    "method-not-allowed": Kind(405, "The method is not for this path"),
    "state-conflict": Kind(409, "The state does not allow this"),
    "name-taken": Kind(409, "The name is taken"),
    "in-use": Kind(409, "Others still need this"),
    "idempotency-key-reused": Kind(422, "The idempotency key came with another body before"),
    "range-not-satisfiable": Kind(416, "The range lies outside the file"),
    "unavailable": Kind(503, "The service cannot work at the moment", retryable=True),
    "internal": Kind(500, "The service failed; this is its own mistake"),
}

STORE: Final[dict[type[StoreError], str]] = {
    NotFoundError: "not-found",
    StateConflictError: "state-conflict",
    NameTakenError: "name-taken",
    InUseError: "in-use",
    ConflictError: "state-conflict",
    LeaseLostError: "state-conflict",
    IdempotencyReusedError: "idempotency-key-reused",
    CursorError: "invalid-cursor",
}

SCHEMA: Final[dict[str, Any]] = {
    "title": "Problem",
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "code", "retryable"],
    "properties": {
        "type": {"type": "string", "format": "uri", "examples": [f"{TYPE}not-found"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What came, what was wanted, what to do."},
        "instance": {"type": "string", "format": "uri"},
        "code": {"type": "string", "enum": sorted(KINDS)},
        "retryable": {"type": "boolean"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "pointer": {"type": "string", "format": "json-pointer"},
                    "parameter": {"type": "string"},
                    "in": {"type": "string", "enum": ["query", "path", "header"]},
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}

FRAMEWORK: Final = {
    401: "unauthenticated",
    404: "not-found",
    405: "method-not-allowed",
    413: "file-too-large",
}


class ProblemError(Exception):
    """A refusal, by its code in `KINDS`."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = headers or {}

    def response(self, request: Request, status: int | None = None) -> JSONResponse:
        """The document, with the status of its kind unless another is given."""
        kind = KINDS[self.code]
        request_id: str = request.state.request_id
        document: dict[str, Any] = {
            "type": TYPE + self.code,
            "title": kind.title,
            "status": status or kind.status,
            "detail": self.detail[:MAX_DETAIL],
            "instance": f"urn:uuid:{request_id}",
            "code": self.code,
            "retryable": kind.retryable,
        }
        if self.errors:
            document["errors"] = self.errors
        headers = {"X-Request-Id": request_id, "Cache-Control": "no-store", **self.headers}
        return JSONResponse(document, status or kind.status, headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Replace every error body of FastAPI and Starlette."""
    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(StoreError, _store)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _framework)
    app.add_exception_handler(OperationalError, _database)
    app.add_exception_handler(Exception, _unexpected)


def code_of(error: type[StoreError]) -> str:
    """The problem that a refusal of the store becomes."""
    return next(STORE[base] for base in error.__mro__ if base in STORE)


def _problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProblemError)
    return error.response(request)


def _store(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StoreError)
    return ProblemError(code_of(type(error)), str(error)).response(request)


def _framework(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = error.status_code
    code = FRAMEWORK.get(status, "invalid-request" if status < 500 else "internal")
    detail = f"{request.method} {request.url.path}: {error.detail}; /openapi.json tells what is"
    headers = dict(error.headers or {})
    if status == 405:
        headers["Allow"] = ", ".join(_allowed(request))
    return ProblemError(code, detail, headers=headers).response(request, status)


def _allowed(request: Request) -> list[str]:
    """The methods of a path; the framework names those of one of its routes."""

    def is_routed(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return [method for method in ("GET", "HEAD", "POST", "DELETE") if is_routed(method)]


def _database(request: Request, error: Exception) -> JSONResponse:
    log.error("database failed", exc_info=error, extra={"request": request.state.request_id})
    problem = ProblemError(
        "unavailable",
        "the database did not answer; send the request again",
        headers={"Retry-After": "5"},
    )
    return problem.response(request)


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("request failed", exc_info=error, extra={"request": request.state.request_id})
    return ProblemError("internal", "the log has more under this instance").response(request)


def _validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors: list[dict[str, str]] = []
    for entry in (_entry(found, error.body) for found in error.errors()[: 2 * MAX_ERRORS]):
        if entry not in errors:  # two dependencies that read one parameter both find it wanting
            errors.append(entry)
    code = "invalid-request"
    if any(e["code"] == "missing" and e.get("pointer") == "/budget/unit" for e in errors):
        code = "budget-unit-missing"
    errors = errors[:MAX_ERRORS]
    detail = "; ".join(f"{_place(entry)}: {entry['detail']}" for entry in errors)
    if isinstance(error.body, bytes):
        detail += "; is it marked as JSON (Content-Type: application/json)?"
    if code == "budget-unit-missing":
        detail += ': say "unit": "points" or "unit": "relative_percent"'
    return ProblemError(code, detail, errors=errors).response(request)


def _entry(error: Mapping[str, Any], body: Any) -> dict[str, str]:
    """One finding of pydantic: where by JSON Pointer (RFC 6901), or by parameter; and what."""
    source, *parts = error["loc"]
    what = {"code": error["type"], "detail": error["msg"].removeprefix("Value error, ")}
    if source != "body":
        return {"parameter": ".".join(map(str, parts)), "in": source, **what}
    if error["type"] == "json_invalid":
        return {"pointer": "", **what, "detail": f"no JSON from character {parts[0]} on"}
    return {"pointer": _pointer(parts, body, error["type"]), **what}


def _pointer(parts: list[str | int], document: Any, kind: str) -> str:
    """The place in the document that was sent.

    What pydantic puts between the steps, the name of a union's member, is left out: it is no
    step of the document.
    """
    pointer = ""
    for number, part in enumerate(parts, start=1):
        missing = kind == "missing" and number == len(parts)
        within = (isinstance(document, dict) and part in document) or (
            isinstance(document, list) and isinstance(part, int) and part < len(document)
        )
        if not (missing or within):
            continue
        pointer += "/" + str(part).replace("~", "~0").replace("/", "~1")
        document = None if missing else document[part]
    return pointer


def _place(entry: Mapping[str, str]) -> str:
    return entry.get("pointer") or entry.get("parameter") or "body"
