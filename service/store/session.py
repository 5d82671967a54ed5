"""Engines and sessions from a URL: SQLite on a local disk, or PostgreSQL by psycopg.

Two kinds of transaction. A writer's takes the write lock of SQLite at once (BEGIN IMMEDIATE): one
that begins deferred, reads and then writes fails with "database is locked" as soon as another
has written in between, whatever the busy timeout. A reader's is read-only on both databases.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.orm import Session, sessionmaker

LOCK_SECONDS = 30.0  # a writer waits so long for the one before it

# The option is PostgreSQL's own; on SQLite it is read in `_begin`.
READING = {"postgresql_readonly": True}


def make_engine(url: str) -> Engine:
    """Open a database; whoever makes an engine disposes of it.

    NaN is no JSON: a payload that holds one is refused here, alike on both databases.

    Args:
        url: `sqlite:///path` or `postgresql+psycopg://...`.
    """
    serializer = partial(json.dumps, allow_nan=False)
    if not url.startswith("sqlite"):
        return create_engine(url, json_serializer=serializer, pool_pre_ping=True)
    engine = create_engine(url, json_serializer=serializer, connect_args={"timeout": LOCK_SECONDS})
    event.listen(engine, "connect", _connect)
    event.listen(engine, "begin", _begin)
    return engine


def make_sessions(engine: Engine) -> sessionmaker[Session]:
    """Sessions that write: `with sessions.begin() as session`. Rows outlive their session."""
    return sessionmaker(engine, expire_on_commit=False)


@contextmanager
def reading(sessions: sessionmaker[Session]) -> Iterator[Session]:
    """A session that reads one state of the database and never waits for a writer."""
    with sessions() as session:
        session.connection(execution_options=READING)
        yield session


def _connect(connection: DBAPIConnection, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN is deferred; `_begin` replaces it
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin(connection: Connection) -> None:
    reads = connection.get_execution_options().get("postgresql_readonly", False)
    connection.exec_driver_sql(f"PRAGMA query_only = {'ON' if reads else 'OFF'}")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
