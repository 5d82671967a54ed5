"""`python -m workers.job JOB TOKEN ATTEMPT [--parent PID]`: one attempt at one job.

The exit code is an `Exit`. SIGTERM ends the process with nothing half-written: what it has found is
in the database, and the next attempt goes on from there.
"""

import argparse
import logging
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

from service.settings import Settings
from service.store.errors import LeaseLostError
from service.store.lease import Lease
from service.store.session import make_engine, make_sessions
from workers.exits import Exit
from workers.journal import Journal
from workers.logs import log_to_stderr
from workers.parent import bind_to

log = logging.getLogger(__name__)


class Stopped(BaseException):
    """SIGTERM came."""


def main() -> Exit:
    """Do the job named on the command line."""
    started = time.monotonic()
    signal.signal(signal.SIGTERM, _stop)
    arguments = _arguments()
    lease = Lease(arguments.job, arguments.token, arguments.attempt)
    log_to_stderr()
    try:
        if arguments.parent is not None and not bind_to(arguments.parent):
            return Exit.ORPHANED
        return _work(lease, started)
    except Stopped:
        log.info("job process stopped", extra={"job": lease.job_id})
        return Exit.STOPPED
    except LeaseLostError:
        log.warning("lease lost", extra={"job": lease.job_id, "attempt": lease.attempt})
        return Exit.LEASE_LOST


def _work(lease: Lease, started: float) -> Exit:
    # Torch takes seconds to import, in which the job is seen to be in its first phase already.
    from workers.phases import carry_out  # noqa: PLC0415

    settings = Settings.from_environment()
    engine = make_engine(settings.database)
    try:
        journal = Journal(make_sessions(engine), lease, patience_seconds=settings.lease_seconds)
        carry_out(journal, settings, started)
    finally:
        engine.dispose()
    return Exit.DONE


def _stop(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001, the signal's own
    # Where the interpreter does not come back from a long call in time, SIGKILL follows.
    raise Stopped


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m workers.job", description="Work on one job.")
    parser.add_argument("job", help="its id")
    parser.add_argument("token", help="of the lease, without which nothing is written")
    parser.add_argument("attempt", type=int)
    parser.add_argument("--parent", type=int, help="die with the process of this id (Linux)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
