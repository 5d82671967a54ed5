"""Who may ask: whoever carries the token."""

from secrets import compare_digest
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.problems import ProblemError

bearer = HTTPBearer(auto_error=False, description="The token that the first start printed.")


def require_token(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
) -> None:
    """Let the request pass, or refuse it.

    Raises:
        ProblemError: unauthenticated.
    """
    token: str | None = request.app.state.token
    if token is None:
        return
    if credentials is None:
        raise _refusal("no bearer token came", "")
    if not compare_digest(credentials.credentials.encode(), token.encode()):
        raise _refusal("another bearer token came", ', error="invalid_token"')


def _refusal(what: str, error: str) -> ProblemError:
    return ProblemError(
        "unauthenticated",
        f"{what}; send `Authorization: Bearer TOKEN` with the token of this service",
        headers={"WWW-Authenticate": f'Bearer realm="ranksearch"{error}'},
    )
