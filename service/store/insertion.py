"""INSERT ... ON CONFLICT DO NOTHING: one spelling in SQL, two in SQLAlchemy."""

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.store.tables import Base

Row = TypeVar("Row", bound=Base)


def insert_new(
    session: Session, table: type[Row], unique: Sequence[str], **values: Any
) -> Row | None:
    """Insert a row, unless one with the same values in the columns `unique` is there.

    On PostgreSQL this waits for a transaction that is inserting the same; the caller that gets
    None sees the other's row with its next statement.

    Returns:
        The new row, or None if nothing was inserted.
    """
    statement: postgresql.Insert | sqlite.Insert
    if session.get_bind().dialect.name == "postgresql":
        statement = postgresql.insert(table).on_conflict_do_nothing(index_elements=unique)
    else:
        statement = sqlite.insert(table).on_conflict_do_nothing(index_elements=unique)
    return session.scalars(statement.values(**values).returning(table)).one_or_none()
