import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from sqlalchemy import select

from service.store import lease as leases
from service.store.session import reading
from service.store.tables import JobRow, JobState
from tests.workers.jobs import (
    PATIENCE_SECONDS,
    Diary,
    environment,
    eventually,
    is_alive,
    read,
    submit,
)

SUPERVISE = Path(__file__).with_name("supervise.py")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
    return Diary(tmp_path / "diary")


class Worker:
    """A supervisor in a process of its own, with fake jobs."""

    def __init__(
        self, behaviour: str, diary: Diary, database_url: str, folder: Path, **settings: object
    ) -> None:
        self.log = folder / "log"
        folder.mkdir()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(SUPERVISE), behaviour, str(diary.path)],
                env=environment(database_url, folder, **({"poll_seconds": 0.05} | settings)),
                stderr=log,
            )

    def exit_code(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)


@pytest.fixture
def start(database_url: str, diary: Diary, tmp_path: Path) -> Iterator:
    with ExitStack() as ends:

        def start(behaviour: str, name: str = "worker", **settings: object) -> Worker:
            worker = Worker(behaviour, diary, database_url, tmp_path / name, **settings)
            ends.callback(worker.process.wait)
            ends.callback(worker.process.kill)
            return worker

        yield start
        for _, _, pid in diary.entries("start"):  # nothing outlives its test
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)


def runs(diary: Diary) -> int:
    eventually(lambda: diary.entries("start") != [], "a job process starts")
    return diary.entries("start")[0][2]


def states(sessions, job_ids: list[str]) -> set[JobState]:
    with reading(sessions) as session:
        return set(session.scalars(select(JobRow.state).where(JobRow.id.in_(job_ids))))


def test_the_supervisor_never_imports_torch():
    code = "import sys, workers.__main__; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_sigterm_drains_the_job_is_queued_again_and_the_exit_code_is_0(start, sessions, diary):
    [job_id] = submit(sessions)
    worker = start("hang")
    process = runs(diary)
    worker.process.send_signal(signal.SIGTERM)
    assert worker.exit_code() == 0
    assert read(sessions, job_id).state is JobState.QUEUED
    assert not is_alive(process)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_second_signal_ends_everything_at_once(start, sessions, diary):
    [job_id] = submit(sessions)
    worker = start("stubborn")
    process = runs(diary)
    worker.process.send_signal(signal.SIGINT)
    eventually(lambda: "job stopping" in worker.log.read_text(), "the first signal is heard")
    worker.process.send_signal(signal.SIGINT)
    assert worker.exit_code() == 128 + signal.SIGINT
    eventually(lambda: not is_alive(process), "the job process is gone")
    assert read(sessions, job_id).state is JobState.RUNNING  # until its lease runs out


@linux_only
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_supervisor_killed_with_9_takes_its_job_process_along(start, sessions, diary):
    submit(sessions)
    worker = start("bound")
    process = runs(diary)
    worker.process.kill()
    eventually(lambda: not is_alive(process), "the job process is gone")


def is_frozen(worker, sessions):
    """Stop a worker; not within a write, where it would keep SQLite's lock for as long."""
    worker.process.send_signal(signal.SIGSTOP)
    database = sessions.kw["bind"].url.database
    try:
        with closing(sqlite3.connect(database, timeout=0.05)) as connection:
            connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        worker.process.send_signal(signal.SIGCONT)
        return False
    return True


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_worker_frozen_past_its_lease_kills_its_process_when_it_thaws(start, sessions, diary):
    [job_id] = submit(sessions)
    worker = start("hang", lease_seconds=1.0)
    process = runs(diary)
    eventually(lambda: is_frozen(worker, sessions), "the worker stops between two writes")

    def take_over() -> bool:
        with sessions.begin() as session:
            return leases.claim(session, "another worker", 600.0) is not None

    eventually(take_over, "the lease runs out")
    assert is_alive(process)
    worker.process.send_signal(signal.SIGCONT)
    eventually(lambda: not is_alive(process), "the late process is killed")
    job = read(sessions, job_id)
    assert (job.state, job.attempt, job.lease_owner) == (JobState.RUNNING, 2, "another worker")


@pytest.mark.parametrize(
    "database_url", [pytest.param("postgresql", marks=pytest.mark.postgres)], indirect=True
)
def test_two_supervisors_share_the_queue_and_run_every_job_once(start, sessions, diary):
    job_ids = submit(sessions, 10)
    workers = [start("succeed", f"worker{i}") for i in range(2)]
    eventually(lambda: states(sessions, job_ids) == {JobState.SUCCEEDED}, "all jobs succeed")
    for worker in workers:
        worker.process.send_signal(signal.SIGTERM)
        assert worker.exit_code() == 0
    assert sorted(job for job, _, _ in diary.entries("start")) == sorted(job_ids)
    assert {attempt for _, attempt, _ in diary.entries("start")} == {1}
    assert states(sessions, job_ids) == {JobState.SUCCEEDED}
    shares = [worker.log.read_text().count("job started") for worker in workers]
    assert sum(shares) == len(job_ids)
    assert min(shares) > 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_log_is_one_json_object_a_line_and_holds_what_the_job_process_says(
    start, sessions, diary
):
    [job_id] = submit(sessions)
    worker = start("succeed")
    eventually(lambda: "job process ended" in worker.log.read_text(), "the job ends")
    worker.process.send_signal(signal.SIGTERM)
    worker.exit_code()
    said, events = [], {}
    for line in worker.log.read_text().splitlines():
        if line.startswith("{"):
            entry = json.loads(line)
            events[entry["event"]] = entry
        else:
            said.append(line)
    assert said == ["this is succeed"]
    assert events["job started"]["job"] == job_id
    assert events["job process ended"]["end"] in (
        "exited",
        "job closed, or claimed by another worker",
    )
