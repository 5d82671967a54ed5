"""`python -m workers`: the supervisor. SIGTERM or SIGINT drains it, exit code 0; a second one
ends it at once.
"""

import os
import signal
import socket
from collections.abc import Callable, Sequence

from service.settings import Settings
from service.store.blobs import Blobs
from service.store.lease import Lease
from service.store.session import make_engine, make_sessions
from workers.logs import log_to_stderr
from workers.supervisor import Supervisor, job_command


def main(command: Callable[[Lease], Sequence[str]] = job_command) -> None:
    """Work until told to stop; `command` runs a job."""
    settings = Settings.from_environment()
    log_to_stderr()
    engine = make_engine(settings.database)
    supervisor = Supervisor(
        make_sessions(engine),
        blobs=Blobs(settings.blobs),
        owner=f"{socket.gethostname()}:{os.getpid()}"[-100:],
        work_dir=settings.data_dir / "work",
        lease_seconds=settings.lease_seconds,
        poll_seconds=settings.poll_seconds,
        command=command,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, supervisor.stop)
    try:
        supervisor.run()
    finally:
        engine.dispose()


if __name__ == "__main__":
    main()
