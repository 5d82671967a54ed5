"""The service as one command: migrated tables, the API, and a worker that is kept alive."""

import json
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import NoReturn

import uvicorn
from sqlalchemy.exc import OperationalError

from service.app import create_app
from service.settings import Settings
from service.store import migrate
from service.supervision import kept_alive
from service.tokens import token_of

GRACE_SECONDS = 2  # for requests that are open at the end


class StartError(Exception):
    """The service cannot start as it is set up."""


def run(
    settings: Settings, environment: Mapping[str, str], *, has_worker: bool, as_json: bool
) -> None:
    """Serve until SIGINT or SIGTERM; whatever was started here has ended on return.

    Args:
        settings: what to serve, and where.
        environment: of the worker, which reads the same settings from it.
        has_worker: whether a worker is started as well.
        as_json: announce the address and the token as one JSON object.

    Raises:
        StartError: the database, the token or the port cannot be had.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    try:
        migrate.upgrade(settings.database)
    except OperationalError as error:
        raise StartError(f"the database cannot be used: {error.orig}") from error
    try:
        token = token_of(settings) if settings.auth else None
    except ValueError as error:
        raise StartError(str(error)) from error
    app = create_app(settings)
    config = uvicorn.Config(
        app, log_level="warning", lifespan="on", timeout_graceful_shutdown=GRACE_SECONDS
    )
    # From here on SIGTERM, too, passes through every `finally`.
    signal.signal(signal.SIGTERM, _leave)
    with _listening(settings.host, settings.port) as listener:
        _announce(listener, token, as_json=as_json)
        try:
            with kept_alive(environment) if has_worker else nullcontext():
                uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            return


def _leave(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 (the signal's own)
    sys.exit(0)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that takes connections from now on, so that its address can be told."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise StartError(
                f"cannot listen at {host}:{port}: {error.strerror}; choose another --port"
            ) from error
        listener.listen(2048)
        yield listener


def _announce(listener: socket.socket, token: str | None, *, as_json: bool) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if as_json:
        print(json.dumps({"url": url, "token": token}), flush=True)
    else:
        print(
            f"ranksearch at {url}", f"token {token}" if token else "no token", sep="\n", flush=True
        )
