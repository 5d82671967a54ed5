"""What a job process writes: one step, one transaction, under its lease."""

import logging
import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from service.store.lease import Lease
from service.store.session import reading

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

PAUSE_SECONDS = 0.5


class Journal:
    """The only way of a job process to the database."""

    def __init__(
        self, sessions: sessionmaker[Session], lease: Lease, *, patience_seconds: float
    ) -> None:
        """Prepare.

        Args:
            patience_seconds: how long a database that is away is waited for; the supervisor does
                not wait longer than the lease.
        """
        self.lease = lease
        self._sessions = sessions
        self._patience_seconds = patience_seconds

    def write(
        self, step: Callable[Concatenate[Session, Lease, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Take `step`, a function of the store that checks the lease, in its own transaction.

        A step that was cut off is taken again: it may have been committed before, which does no
        harm, since all of them set what they set, or add nothing that is there.

        Raises:
            LeaseLostError: the job is no longer ours; nothing was written.
        """

        def take() -> R:
            with self._sessions.begin() as session:
                return step(session, self.lease, *args, **kwargs)

        return self._insist(take)

    def read(
        self, question: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Ask a question of the store, which needs no lease."""

        def ask() -> R:
            with reading(self._sessions) as session:
                return question(session, *args, **kwargs)

        return self._insist(ask)

    def _insist(self, work: Callable[[], R]) -> R:
        give_up_at = time.monotonic() + self._patience_seconds
        while True:
            try:
                return work()
            except (OperationalError, InterfaceError) as error:
                if time.monotonic() > give_up_at:
                    raise
                log.warning(
                    "database away", extra={"job": self.lease.job_id, "cause": str(error.orig)}
                )
                time.sleep(PAUSE_SECONDS)
