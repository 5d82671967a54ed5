"""Functions called by several threads at the same moment, or one while the other waits."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from service.store.session import reading

T = TypeVar("T")
U = TypeVar("U")
WAIT_SECONDS = 30

SOMEBODY_WAITS = text(
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


def together(*functions: Callable[[], T]) -> Sequence[T]:
    """Their results, in the order of the functions; the first error, if there is one."""
    barrier = Barrier(len(functions))

    def start(function: Callable[[], T]) -> T:
        barrier.wait(timeout=WAIT_SECONDS)
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(start, functions))


def overtaken(
    sessions: sessionmaker[Session],
    first: Callable[[Session], T],
    second: Callable[[Session], U],
) -> tuple[T, U]:
    """Both results, where `first` commits only when `second` waits for it or has come through.

    On SQLite nobody can look who waits: there a writer is alone from its first statement on.
    """

    def go_second() -> U:
        with sessions.begin() as session:
            return second(session)

    with ThreadPoolExecutor(1) as pool:
        with sessions.begin() as session:
            result = first(session)
            going = pool.submit(go_second)
            if session.get_bind().dialect.name == "postgresql":
                _wait(sessions, going)
        return result, going.result(timeout=WAIT_SECONDS)


def _wait(sessions: sessionmaker[Session], going: Future[U]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not going.done():
        with reading(sessions) as session:
            if session.scalars(SOMEBODY_WAITS).one():
                return
        assert time.monotonic() < deadline
