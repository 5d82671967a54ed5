"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header).

However often a request comes, it is done once and answered each time. What was made and the
answer to it are one commit; a refusal is not kept, since nothing was made.
"""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Header, Request
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from service.problems import ProblemError
from service.store import idempotency

KEY: Final = re.compile(r"[\x21-\x7e]{1,200}")
KEPT: Final = ("location", "retry-after", "etag")


@dataclass(frozen=True, slots=True)
class Once:
    """A request that may come again; without a key it is another request each time."""

    scope: str
    key: str | None
    body_sha256: str

    def answer(self, session: Session, act: Callable[[], JSONResponse]) -> JSONResponse:
        """Act, or answer as the first time.

        Raises:
            IdempotencyReusedError: the key came with another body.
        """
        if self.key is None:
            return act()
        kept = idempotency.find(session, self.scope, self.key, self.body_sha256)
        if kept is not None:
            headers = {**kept.headers, "Idempotency-Replayed": "true"}
            return JSONResponse(kept.body, kept.status, headers)
        response = act()
        idempotency.keep(
            session,
            self.scope,
            self.key,
            status=response.status_code,
            headers={name: response.headers[name] for name in KEPT if name in response.headers},
            body=json.loads(bytes(response.body)),
        )
        return response


async def read_once(
    request: Request,
    idempotency_key: Annotated[
        str | None, Header(description="The same key and body make one thing, however often sent.")
    ] = None,
) -> Once:
    """The key of a request; async since the body is awaited, which has been read by now."""
    if idempotency_key is not None and not KEY.fullmatch(idempotency_key):
        raise ProblemError(
            "invalid-request",
            "another Idempotency-Key came, 1 to 200 visible ASCII characters were wanted",
            errors=[{"parameter": "Idempotency-Key", "in": "header"}],
        )
    digest = hashlib.sha256(await request.body()).hexdigest()
    return Once(f"{request.method} {request.url.path}", idempotency_key, digest)


OnceDep = Annotated[Once, Depends(read_once)]
