"""The database's clock: the only one that all processes share."""

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from service.store.tables import Moment


class at(GenericFunction[datetime]):  # noqa: N801, a function of SQL
    """`at(seconds)`: so many seconds from now, or ago when negative.

    Rows of one PostgreSQL transaction share its `now()`, so that is not what is asked.
    """

    type = Moment()
    inherit_cache = True


@compiles(at, "postgresql")
def _on_postgresql(element: at, compiler: SQLCompiler, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    return f"clock_timestamp() + make_interval(secs => {seconds})"


@compiles(at, "sqlite")
def _on_sqlite(element: at, compiler: SQLCompiler, **options: Any) -> str:
    # As text in the form that SQLAlchemy stores, so that it compares with the columns.
    seconds = compiler.process(element.clauses, **options)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%+.3f seconds', {seconds}))"


def now(session: Session) -> datetime:
    """The time by the database's clock, UTC."""
    return session.scalars(select(at(0))).one()
