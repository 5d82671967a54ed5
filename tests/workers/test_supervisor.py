import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import select, update
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session, sessionmaker

from service.store import clock
from service.store import lease as leases
from service.store.blobs import Blobs
from service.store.tables import IdempotencyRow, JobRow, JobState
from tests.workers.jobs import (
    Diary,
    cancel,
    eventually,
    fake_command,
    is_alive,
    read,
    submit,
)
from workers.supervisor import Supervisor

Sessions = sessionmaker[Session]


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
    return Diary(tmp_path / "diary")


@pytest.fixture(autouse=True)
def database_of_the_fake_jobs(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKSEARCH_DATABASE_URL", database_url)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


@contextmanager
def supervised(sessions: Sessions, diary: Diary, behaviour: str, **options) -> Iterator[Supervisor]:
    """A supervisor that works in a thread until the end of the test."""
    supervisor = Supervisor(
        sessions,
        blobs=Blobs(diary.path.with_name("blobs")),
        owner="a test",
        work_dir=diary.path.with_name("work"),
        poll_seconds=0.05,
        command=partial(fake_command, behaviour, str(diary.path)),
        **({"lease_seconds": 30.0} | options),
    )
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        yield supervisor
    finally:
        if thread.is_alive() and not supervisor.is_stopping:
            supervisor.stop(signal.SIGTERM)
        thread.join()


def ends(sessions: Sessions, job_id: str, state: JobState) -> JobRow:
    eventually(lambda: read(sessions, job_id).state.is_terminal, f"{job_id} ends")
    job = read(sessions, job_id)
    assert job.state is state
    assert job.lease_token is None
    return job


def starts(diary: Diary) -> int:
    """The process of the first job, once it runs."""
    eventually(lambda: diary.entries("start") != [], "a job process starts")
    return diary.entries("start")[0][2]


def test_a_job_is_claimed_run_and_left_as_its_process_closed_it(sessions, diary):
    [job_id] = submit(sessions)
    with supervised(sessions, diary, "succeed"):
        job = ends(sessions, job_id, JobState.SUCCEEDED)
    assert (job.verdict, job.attempt) == ("budget_met", 1)
    assert [job for job, _, _ in diary.entries("start")] == [job_id]


def test_after_a_job_answers_older_than_a_day_are_forgotten(sessions, diary):
    [job_id] = submit(sessions)
    answer = {"scope": "jobs", "body_sha256": "", "status": 202, "headers": {}, "body": {}}
    with sessions.begin() as session:
        for key, age in [("old", 25 * 3600), ("young", 23 * 3600)]:
            session.add(IdempotencyRow(key=key, created_at=clock.at(-age), **answer))

    def keys() -> list[str]:
        with sessions() as session:
            return sorted(session.scalars(select(IdempotencyRow.key)))

    with supervised(sessions, diary, "succeed"):
        ends(sessions, job_id, JobState.SUCCEEDED)
        eventually(lambda: keys() == ["young"], "the old answer is gone")


def test_a_job_whose_process_always_dies_fails_after_its_attempts_and_says_how(sessions, diary):
    [job_id] = submit(sessions)
    with supervised(sessions, diary, "crash"):
        job = ends(sessions, job_id, JobState.FAILED)
    assert [attempt for _, attempt, _ in diary.entries("start")] == [1, 2, 3]
    assert job.reason["code"] == "worker_lost"
    assert job.reason["retryable"]
    assert "exit code 1" in job.reason["detail"]
    assert "RuntimeError: the cause of it" in job.reason["detail"]
    assert "fake_job.py" not in job.reason["detail"]  # frames name the paths of this machine


def test_a_job_process_killed_from_outside_is_started_again(sessions, diary):
    [job_id] = submit(sessions)
    with supervised(sessions, diary, "killed"):
        job = ends(sessions, job_id, JobState.FAILED)
    assert "SIGKILL" in job.reason["detail"]
    assert job.attempt == 3


def test_a_cancelled_job_ends_and_so_does_its_process(sessions, diary):
    [job_id] = submit(sessions)
    with supervised(sessions, diary, "hang"):
        process = starts(diary)
        cancel(sessions, job_id)
        ends(sessions, job_id, JobState.CANCELLED)
        assert not is_alive(process)


def test_a_process_that_ignores_the_cancellation_is_killed(sessions, diary):
    [job_id] = submit(sessions)
    with supervised(sessions, diary, "stubborn"):
        process = starts(diary)
        cancel(sessions, job_id)
        ends(sessions, job_id, JobState.CANCELLED)
        assert not is_alive(process)


def test_what_a_job_process_has_started_goes_with_it(sessions, diary):
    [job_id] = submit(sessions)
    with supervised(sessions, diary, "mother"):
        starts(diary)
        child = diary.entries("child")[0][2]
        assert is_alive(child)
        cancel(sessions, job_id)
        ends(sessions, job_id, JobState.CANCELLED)
        eventually(lambda: not is_alive(child), "the child's child is gone")


def test_a_drained_supervisor_hands_its_job_back_and_no_attempt_is_counted(sessions, diary):
    [job_id] = submit(sessions)
    with supervised(sessions, diary, "hang"):
        process = starts(diary)
    job = read(sessions, job_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    assert not is_alive(process)


def test_a_job_that_another_worker_took_is_left_to_it_and_the_process_killed(sessions, diary):
    [job_id] = submit(sessions)
    with supervised(sessions, diary, "hang", lease_seconds=3000.0) as supervisor:
        process = starts(diary)
        with sessions.begin() as session:
            session.execute(update(JobRow).values(lease_token="another's"))
        eventually(lambda: not is_alive(process), "the job process is killed")
        supervisor.stop(signal.SIGTERM)
    job = read(sessions, job_id)
    assert (job.state, job.lease_token) == (JobState.RUNNING, "another's")


def test_a_process_far_beyond_its_deadline_ends_the_job_as_timed_out(sessions, diary, monkeypatch):
    leap = 0.0
    monkeypatch.setattr(
        "workers.supervisor.time", SimpleNamespace(monotonic=lambda: time.monotonic() + leap)
    )
    [job_id] = submit(sessions, limits={"max_seconds": 5000.0})
    with supervised(sessions, diary, "hang", grace_seconds=500.0):
        process = starts(diary)
        leap = 5500.0  # as if the process had been at it for so long
        job = ends(sessions, job_id, JobState.FAILED)
    assert job.reason["code"] == "timeout"
    assert job.reason["retryable"]
    assert not is_alive(process)


def test_a_job_process_that_cannot_be_started_counts_as_an_attempt(sessions, diary):
    [job_id] = submit(sessions)
    diary.path.with_name("work").write_text("a file where the folder should be")
    with supervised(sessions, diary, "succeed"):
        job = ends(sessions, job_id, JobState.FAILED)
    assert "did not start" in job.reason["detail"]


def test_files_that_no_row_needs_any_more_are_removed_after_a_job(sessions, diary):
    blobs = Blobs(diary.path.with_name("blobs"))
    with blobs.writer() as writer:
        writer.write(b"replaced by a better result")
        replaced = writer.commit()
    os.utime(blobs.path(replaced), (0, 0))  # long ago
    submit(sessions)
    with supervised(sessions, diary, "succeed"):
        eventually(lambda: not blobs.path(replaced).exists(), "the file is removed")


def test_a_job_that_fell_silent_is_taken_over(sessions, diary):
    [job_id] = submit(sessions)
    with sessions.begin() as session:
        assert leases.claim(session, "a dead worker", 0.2) is not None
    with supervised(sessions, diary, "succeed"):
        job = ends(sessions, job_id, JobState.SUCCEEDED)
    assert job.attempt == 2


def test_the_folder_of_a_job_is_gone_after_it(sessions, diary):
    left_behind = diary.path.with_name("work")
    [job_id] = submit(sessions)
    with supervised(sessions, diary, "hang"):
        starts(diary)
        assert (left_behind / job_id).is_dir()
        cancel(sessions, job_id)
        ends(sessions, job_id, JobState.CANCELLED)
        eventually(lambda: not (left_behind / job_id).exists(), "the folder is removed")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_while_the_database_does_not_answer_the_process_is_killed_all_the_same(
    sessions, diary, database_url
):
    [job_id] = submit(sessions)
    path = make_url(database_url).database
    with supervised(sessions, diary, "hang", lease_seconds=2.0):
        process = starts(diary)
        with closing(sqlite3.connect(path, isolation_level=None)) as blocker:
            blocker.execute("BEGIN IMMEDIATE")  # no renewal gets past this
            eventually(lambda: not is_alive(process), "the job process is killed")
            blocker.execute("ROLLBACK")
        # Back again: the next attempt begins, and the supervisor has not died of it.
        eventually(lambda: len(diary.entries("start")) >= 2, "the next attempt")
    assert read(sessions, job_id).state is JobState.QUEUED
