"""One page of a list by keyset, so that a list that grows never repeats a row."""

from typing import Any, TypeVar

from sqlalchemy import Select, SQLColumnExpression, desc, select, tuple_
from sqlalchemy.orm import Session

from service.store.errors import CursorError
from service.store.tables import Base

Row = TypeVar("Row", bound=Base)


def page(
    session: Session,
    statement: Select[Row],
    *,
    key: SQLColumnExpression[Any],
    id_: SQLColumnExpression[str],
    after: str | None,
    limit: int,
    is_descending: bool = True,
) -> list[Row]:
    """The first `limit` rows of `statement` by (key, id), or those that follow the row `after`.

    The row `after` need not be one of `statement` (its state may have changed meanwhile).

    Raises:
        CursorError: there is no row with the id `after`.
    """
    place = tuple_(key, id_)
    if after is not None:
        found = session.execute(select(key, id_).where(id_ == after)).one_or_none()
        if found is None:
            raise CursorError(after)
        last = tuple(found)
        statement = statement.where(place < last if is_descending else place > last)
    order = (desc(key), desc(id_)) if is_descending else (key, id_)
    return list(session.scalars(statement.order_by(*order).limit(limit)))
