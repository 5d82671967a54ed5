"""`ranksearch serve`: migrated tables, the API, and a supervisor that is kept alive."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, NoReturn

import typer
import uvicorn

from service.app import create_app
from service.commands.connection import Json
from service.settings import Settings
from service.store import migrate
from service.tokens import token_of

GRACE_SECONDS = 5  # for open requests, and for the supervisor to end its job process
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0  # a supervisor that lived this long did not die of its start
PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


def serve(
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "",
    port: Annotated[int | None, typer.Option(help="Port to listen at; 0: any free one.")] = None,
    data_dir: Annotated[str, typer.Option(help="Folder of database, files and token.")] = "",
    worker: Annotated[bool, typer.Option(help="Whether to run a worker as well.")] = True,
    as_json: Json = False,
) -> None:
    """Start the service: the API and, unless told otherwise, one worker."""
    given = {"HOST": host, "PORT": "" if port is None else str(port), "DATA_DIR": data_dir}
    environment = {**os.environ, **{f"RANKSEARCH_{k}": v for k, v in given.items() if v}}
    settings = Settings.from_environment(environment)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    migrate.upgrade(settings.database)
    token = token_of(settings) if settings.auth else None
    app = create_app(settings)
    # From here on SIGTERM, too, passes through every `finally`.
    signal.signal(signal.SIGTERM, _leave)
    with _listening(settings.host, settings.port) as listener:
        _announce(listener, token, as_json=as_json)
        server = uvicorn.Server(
            uvicorn.Config(
                app, log_level="warning", timeout_graceful_shutdown=GRACE_SECONDS, lifespan="on"
            )
        )
        try:
            with _kept_alive(environment if worker else None):
                server.run(sockets=[listener])
        except KeyboardInterrupt:
            return


def _leave(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    sys.exit(0)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that answers from now on, so that the address can be told."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise typer.BadParameter(
                f"cannot listen at {host}:{port}: {error.strerror}; choose another --port"
            ) from error
        listener.listen(2048)
        yield listener


def _announce(listener: socket.socket, token: str | None, *, as_json: bool) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if as_json:
        print(json.dumps({"url": url, "token": token}), flush=True)
        return
    print(f"ranksearch at {url}")
    print(f"token {token}" if token else "no token is asked for", flush=True)


@contextmanager
def _kept_alive(environment: Mapping[str, str] | None) -> Iterator[None]:
    """One supervisor at any time, started again whenever it dies; None: none at all."""
    if environment is None:
        yield
        return
    supervisor = _Supervisor(environment)
    supervisor.start()
    try:
        yield
    finally:
        supervisor.stop()


class _Supervisor:
    """The child process and the thread that watches over it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()  # held while the child is exchanged
        self._stopping = threading.Event()
        # The kernel ends the child with the thread that started it, so one thread starts them all.
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the child to leave, and see to it."""
        with self._lock:
            self._stopping.set()
            child = self._child
        if child is not None:
            child.terminate()
            try:
                child.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
        self._thread.join()

    def _watch(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            with self._lock:
                if self._stopping.is_set():
                    return
                started_at, self._child = time.monotonic(), _started(self._environment)
            code = self._child.wait()
            if self._stopping.is_set():
                return
            if time.monotonic() - started_at > STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            print(
                f"the worker ended with exit code {code}; the next one starts in {pause:.0f} s",
                file=sys.stderr,
                flush=True,
            )
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _started(environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A supervisor in a session of its own: Ctrl-C is ours to pass on, once."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def bind() -> None:
        if libc is not None:  # not even kill -9 of this process leaves the child behind
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    return subprocess.Popen(
        [sys.executable, "-m", "workers"],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=bind,  # noqa: PLW1509 (takes no lock: one system call between fork and exec)
    )
