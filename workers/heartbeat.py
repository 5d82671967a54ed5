"""A thread that renews a lease and hears what has become of it."""

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from service.store import lease as leases
from service.store.errors import LeaseLostError
from service.store.lease import Lease

log = logging.getLogger(__name__)


class Heartbeat:
    """Renews every `poll_seconds`, in a thread of its own: a database that does not answer must
    not keep the supervisor from killing a job process in time.
    """

    def __init__(
        self,
        sessions: sessionmaker[Session],
        lease: Lease,
        *,
        renewed_at: float,
        lease_seconds: float,
        poll_seconds: float,
        wake: Callable[[], object],
    ) -> None:
        """Prepare; `start` begins to renew.

        Args:
            renewed_at: `time.monotonic()` from before the lease was asked for.
            wake: called, in the thread, when `is_lost` or `cancel_requested` has become true.
        """
        self.is_lost = False
        self.cancel_requested = False
        self._sessions = sessions
        self._lease = lease
        self._renewed_at = renewed_at
        self._lease_seconds = lease_seconds
        self._poll_seconds = poll_seconds
        self._wake = wake
        self._stopped = threading.Event()
        # A renewal that never returns must not keep the process alive.
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    @property
    def silence(self) -> float:
        """Seconds since the sending of the last renewal that was confirmed."""
        return time.monotonic() - self._renewed_at

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Renew no more; a renewal under way is given one second to return."""
        self._stopped.set()
        self._thread.join(1.0)

    def _beat(self) -> None:
        while not self._stopped.wait(self._poll_seconds):
            sent_at = time.monotonic()
            try:
                with self._sessions.begin() as session:
                    cancel_requested = leases.renew(session, self._lease, self._lease_seconds)
            except LeaseLostError:
                self.is_lost = True
                self._wake()
                return
            except DBAPIError as error:
                log.warning(
                    "lease not renewed",
                    extra={
                        "job": self._lease.job_id,
                        "silence": self.silence,
                        "cause": str(error.orig),
                    },
                )
                continue
            self._renewed_at = sent_at
            if cancel_requested and not self.cancel_requested:
                self.cancel_requested = True
                self._wake()
