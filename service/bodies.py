"""JSON bodies: read whole, hence short."""

from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

MAX_JSON_BYTES: Final = 1 << 17


class ShortRequest(Request):
    """A request whose body is given up on once it is too long."""

    _short: bytes | None = None

    async def body(self) -> bytes:
        """The body.

        Raises:
            HTTPException: 413; FastAPI reads the body itself and lets no other error through.
        """
        if self._short is None:
            received = bytearray()
            async for chunk in self.stream():
                received += chunk
                if len(received) > MAX_JSON_BYTES:
                    raise HTTPException(413, f"at most {MAX_JSON_BYTES} bytes of JSON were wanted")
            self._short = bytes(received)
        return self._short


class ShortRoute(APIRoute):
    """A route that takes JSON: FastAPI would hold any body whole before it looks at the token."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_short(request: Request) -> Response:
            return await handle(ShortRequest(request.scope, request.receive))

        return handle_short
