"""Claims jobs, starts one process for each and answers for how it ends. Never imports torch."""

import enum
import logging
import os
import queue
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from search.config import Limits
from service.store import garbage, idempotency, jobs
from service.store import lease as leases
from service.store.blobs import Blobs
from service.store.errors import LeaseLostError
from service.store.lease import Lease
from service.store.session import reading
from service.store.tables import JobState
from workers.heartbeat import Heartbeat
from workers.process import JobProcess

log = logging.getLogger(__name__)

STOP_SECONDS = 1.0
"""From SIGTERM to SIGKILL; half of what a cancellation may take."""
TICK_SECONDS = 0.1
"""The longest wait between two looks at a job process; its end is heard of at once."""
SAFE_SHARE = 0.8
"""Of a lease without an answer from the database; then the job process has to be gone."""


class End(enum.Enum):
    """Why a job process is no longer watched."""

    EXITED = "exited"  # by itself
    LEASE_ENDED = "job closed, or claimed by another worker"
    DATABASE_AWAY = "database away"  # for so long that the lease may have run out
    CANCELLED = "cancelled"
    TIMED_OUT = "timed out"  # far beyond its own deadline: it hangs
    DRAINED = "drained"  # the supervisor was told to stop


def job_command(lease: Lease) -> list[str]:
    """What runs a job: a process bound to this one."""
    arguments = [lease.job_id, lease.token, str(lease.attempt), "--parent", str(os.getpid())]
    return [sys.executable, "-m", "workers.job", *arguments]


class Supervisor:
    """One job at a time, until it is told to stop."""

    def __init__(
        self,
        sessions: sessionmaker[Session],
        *,
        blobs: Blobs,
        owner: str,
        work_dir: Path,
        lease_seconds: float,
        poll_seconds: float,
        grace_seconds: float = 600.0,
        command: Callable[[Lease], Sequence[str]] = job_command,
    ) -> None:
        """Prepare; `run` begins.

        Args:
            blobs: tidied up after each job.
            owner: who holds the leases, for people who read the table.
            work_dir: gets one folder for each running job, removed when its process has ended.
            grace_seconds: how long a job process may run beyond the job's `max_seconds`.
        """
        self._sessions = sessions
        self._blobs = blobs
        self._owner = owner
        self._work_dir = work_dir
        self._lease_seconds = lease_seconds
        self._poll_seconds = poll_seconds
        self._grace_seconds = grace_seconds
        self._command = command
        self._process: JobProcess | None = None
        self.is_stopping = False
        # Anything that may be news ends a wait; its `put` may be called from a signal handler.
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()

    def stop(self, number: int, _frame: FrameType | None = None) -> None:
        """Handle SIGTERM and SIGINT: drain; the second one ends everything at once."""
        if self.is_stopping:
            if self._process is not None:
                self._process.signal(signal.SIGKILL)
            os._exit(128 + number)
        self.is_stopping = True
        self._wake()

    def run(self) -> None:
        """Claim and work until `stop`."""
        log.info("worker ready", extra={"owner": self._owner})
        while not self.is_stopping:
            if not self._work():
                self._wait(self._poll_seconds)
        log.info("worker drained", extra={"owner": self._owner})

    def _work(self) -> bool:
        """Do one job; False if there is none, or no database to ask."""
        asked_at = time.monotonic()
        try:
            with self._sessions.begin() as session:
                lease = leases.claim(session, self._owner, self._lease_seconds)
                seconds = None if lease is None else _max_seconds(session, lease)
        except DBAPIError as error:
            log.warning("no claim", extra={"cause": str(error.orig)})
            return False
        if lease is None or seconds is None:
            return False
        heartbeat = Heartbeat(
            self._sessions,
            lease,
            renewed_at=asked_at,
            lease_seconds=self._lease_seconds,
            poll_seconds=self._poll_seconds,
            wake=self._wake,
        )
        heartbeat.start()
        try:
            self._supervise(lease, heartbeat, asked_at + seconds + self._grace_seconds)
        except OSError as error:  # no room for its folder, or no more processes
            log.exception("job not started", extra={"job": lease.job_id})
            self._settle(lease, heartbeat, End.EXITED, f"the job process did not start: {error}")
        finally:
            heartbeat.stop()
        self._tidy()
        return True

    def _supervise(self, lease: Lease, heartbeat: Heartbeat, deadline: float) -> None:
        folder = (self._work_dir / lease.job_id).resolve()
        shutil.rmtree(folder, ignore_errors=True)  # of a worker that was killed with the job
        folder.mkdir(parents=True)
        process = JobProcess(
            self._command(lease), {**os.environ, "TMPDIR": str(folder)}, self._wake
        )
        self._process = process
        facts = {"job": lease.job_id, "attempt": lease.attempt, "pid": process.id}
        try:
            log.info("job started", extra=facts)
            end = self._watch(process, heartbeat, deadline)
            if end in (End.CANCELLED, End.DRAINED):
                log.info("job stopping", extra={**facts, "end": end.value})
                process.terminate(STOP_SECONDS)
        finally:
            process.kill()
            self._process = None
            shutil.rmtree(folder, ignore_errors=True)
        log.info("job process ended", extra={**facts, "end": end.value})
        self._settle(lease, heartbeat, end, process.last_words())

    def _watch(self, process: JobProcess, heartbeat: Heartbeat, deadline: float) -> End:
        """Wait until there is a reason to watch no longer; the process may still be there."""
        while True:
            if heartbeat.is_lost:
                return End.LEASE_ENDED
            if process.has_ended:
                return End.EXITED
            if heartbeat.silence > SAFE_SHARE * self._lease_seconds:
                return End.DATABASE_AWAY
            if heartbeat.cancel_requested:
                return End.CANCELLED
            if time.monotonic() > deadline:
                return End.TIMED_OUT
            if self.is_stopping:
                return End.DRAINED
            self._wait(TICK_SECONDS)

    def _settle(self, lease: Lease, heartbeat: Heartbeat, end: End, last_words: str) -> None:
        """Close the job or queue it again, unless its process has closed it already."""
        if end in (End.LEASE_ENDED, End.DATABASE_AWAY):
            return  # whoever claims it next does
        while heartbeat.silence < self._lease_seconds:
            try:
                with self._sessions.begin() as session:
                    _close(session, lease, end, last_words)
                return
            except LeaseLostError:
                return
            except DBAPIError as error:
                log.warning("job not closed", extra={"job": lease.job_id, "cause": str(error.orig)})
                self._wait(self._poll_seconds)

    def _tidy(self) -> None:
        """Remove what no one needs: files of results that were replaced, answers of yesterday."""
        try:
            with self._sessions.begin() as session:
                idempotency.sweep(session)
            with reading(self._sessions) as session:
                removed = garbage.collect(session, self._blobs)
            log.info("store tidied", extra={"files": len(removed) + self._blobs.sweep()})
        except (DBAPIError, OSError) as error:
            log.warning("store not tidied", extra={"cause": str(error)})

    def _wake(self) -> None:
        self._news.put(None)

    def _wait(self, seconds: float) -> None:
        try:
            self._news.get(timeout=seconds)
        except queue.Empty:
            return


def _close(session: Session, lease: Lease, end: End, last_words: str) -> None:
    if end is End.CANCELLED:
        leases.finish(session, lease, JobState.CANCELLED)
    elif end is End.TIMED_OUT:
        reason = {"code": "timeout", "detail": last_words, "retryable": True}
        leases.finish(session, lease, JobState.FAILED, reason=reason)
    else:
        leases.release(session, lease, None if end is End.DRAINED else last_words)


def _max_seconds(session: Session, lease: Lease) -> float:
    limits = jobs.get(session, lease.job_id).request.get("limits", {})
    return float(limits.get("max_seconds", Limits().max_seconds))
