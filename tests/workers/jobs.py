"""Jobs in the queue, jobs that are faked, and waiting for what becomes of them."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.orm import Session, sessionmaker

from service.store import datasets, jobs, models
from service.store.lease import Lease
from service.store.session import reading
from service.store.tables import JobRow

FAKE = Path(__file__).with_name("fake_job.py")
PATIENCE_SECONDS = 30.0  # a deadline, not a measurement: the machine may be busy


def fake_command(behaviour: str, diary: str, lease: Lease) -> list[str]:
    own = [lease.job_id, lease.token, str(lease.attempt)]
    return [sys.executable, str(FAKE), behaviour, diary, *own]


def submit(sessions: sessionmaker[Session], count: int = 1, **request: object) -> list[str]:
    """Queue jobs on a model and data that are not there; their ids."""
    with sessions.begin() as session:
        model = models.add(
            session,
            name="m",
            architecture="digits_cnn",
            sha256="0" * 64,
            size_bytes=1,
            parameters=1,
        )
        dataset = datasets.add(
            session, name="d", builtin="digits", sha256=None, size_bytes=0, description={}
        )
        return [
            jobs.submit(session, model_id=model.id, dataset_id=dataset.id, request=request).id
            for _ in range(count)
        ]


def read(sessions: sessionmaker[Session], job_id: str) -> JobRow:
    with reading(sessions) as session:
        return jobs.get(session, job_id)


def cancel(sessions: sessionmaker[Session], job_id: str) -> None:
    with sessions.begin() as session:
        jobs.cancel(session, job_id)


def eventually(
    holds: Callable[[], bool], what: str = "", seconds: float = PATIENCE_SECONDS
) -> None:
    """Wait until something holds, for as long as a busy machine may need."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"never came true: {what or holds}"
        time.sleep(0.05)


class Diary:
    """What the fake jobs noted: (event, job id, attempt, process id) each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def entries(self, event: str) -> list[tuple[str, int, int]]:
        lines = [line.split() for line in self.path.read_text().splitlines()]
        return [(job, int(attempt), int(pid)) for e, job, attempt, pid in lines if e == event]


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # no such file, or none any more once it was opened
        return False


def environment(database_url: str, data_dir: Path, **settings: object) -> dict[str, str]:
    """For a worker that is started as a process of its own."""
    own = {"database_url": database_url, "data_dir": data_dir, **settings}
    repository = Path(__file__).parents[2]
    return {
        **os.environ,
        "PYTHONPATH": str(repository),
        "OMP_NUM_THREADS": "1",
        **{f"RANKSEARCH_{name.upper()}": str(value) for name, value in own.items()},
    }
