"""Answers kept for the key that a client sent, in the transaction that created what they tell of.

    if (row := idempotency.find(session, scope, key, body_sha256)) is not None:
        replay(row)
    ...                                     # create
    idempotency.keep(session, scope, key, status=202, headers=..., body=...)

`find` takes the key. A second request with it waits there until the first has committed, and
replays; if the first is rolled back, the second is now the first.
"""

from typing import Any

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.orm import Session

from service.store import clock
from service.store.errors import IdempotencyReusedError
from service.store.insertion import insert_new
from service.store.tables import IdempotencyRow

KEPT_SECONDS = 24 * 3600
_NO_ANSWER = 0  # the status of a key that is taken and not yet answered


def find(session: Session, scope: str, key: str, body_sha256: str) -> IdempotencyRow | None:
    """The answer given to this key, or None, and then the key is the caller's to answer.

    The key is locked from here to the end of the transaction, on SQLite the whole database: the
    body has been read before.

    Args:
        scope: caller, method and path.

    Raises:
        IdempotencyReusedError: the key came with another body.
    """
    mine = {"scope": scope, "key": key}
    same = select(IdempotencyRow).filter_by(**mine)
    stale = (
        delete(IdempotencyRow)
        .filter_by(**mine)
        .where(_is_over() | (IdempotencyRow.status == _NO_ANSWER))
    )
    while True:  # again, should another have taken the key in vain, or its day end in between
        session.execute(stale)
        taken = insert_new(
            session,
            IdempotencyRow,
            ("scope", "key"),
            **mine,
            body_sha256=body_sha256,
            status=_NO_ANSWER,
            headers={},
            body={},
            created_at=clock.at(0),
        )
        if taken is not None:
            return None
        row = session.scalars(same, execution_options={"populate_existing": True}).one_or_none()
        if row is None or row.status == _NO_ANSWER:
            continue
        if row.body_sha256 != body_sha256:
            raise IdempotencyReusedError(key)
        return row


def keep(
    session: Session,
    scope: str,
    key: str,
    *,
    status: int,
    headers: dict[str, Any],
    body: dict[str, Any],
) -> None:
    """Answer the key that `find` has taken in this transaction."""
    session.execute(
        update(IdempotencyRow)
        .filter_by(scope=scope, key=key)
        .values(status=status, headers=headers, body=body)
        .returning(IdempotencyRow.key)
    ).one()


def sweep(session: Session) -> None:
    """Forget the keys that are older than a day."""
    session.execute(delete(IdempotencyRow).where(_is_over()))


def _is_over() -> ColumnElement[bool]:
    return IdempotencyRow.created_at < clock.at(-KEPT_SECONDS)
