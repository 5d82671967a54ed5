import subprocess
import sys

import pytest
from sqlalchemy import select, update

from service.store import clock, events, jobs, progress
from service.store.errors import LeaseLostError
from service.store.lease import Lease, claim, finish, release, renew
from service.store.tables import JobRow, JobState
from tests.store.rows import add_dataset, add_model, fall_silent, held, reread, submit
from tests.store.together import overtaken, together


def states(session, job_id: str) -> list[str]:
    return [e.payload["state"] for e in events.of_job(session, job_id) if e.type == "state"]


def test_a_claimed_job_runs_under_its_lease(sessions):
    with sessions.begin() as session:
        job = submit(session)
        lease = claim(session, "worker 1", 60)
        row = reread(session, job.id)
        assert lease == Lease(job.id, row.lease_token, 1)
        assert (row.state, row.phase, row.attempt) == (JobState.RUNNING, "loading", 1)
        assert row.lease_owner == "worker 1"
        assert row.lease_until > clock.now(session)
        assert row.started_at is not None
        assert row.version > job.version or row is job
        told = [(e.type, e.payload) for e in events.of_job(session, job.id)]
        assert told[1:] == [
            ("state", {"state": "running", "attempt": 1}),
            ("phase", {"phase": "loading"}),
        ]


def test_an_empty_queue_gives_no_lease(sessions):
    with sessions.begin() as session:
        assert claim(session, "worker", 60) is None
        held(session)
        assert claim(session, "worker", 60) is None


def test_the_queue_goes_by_priority_then_by_time(sessions):
    with sessions.begin() as session:
        first = submit(session).id
        second = submit(session).id
        urgent = submit(session, priority=5).id
        late = submit(session, priority=-1).id
        order = [claim(session, "worker", 60).job_id for _ in range(4)]
        assert order == [urgent, first, second, late]


def test_time_in_the_queue_does_not_count_as_time_of_the_job(sessions):
    with sessions.begin() as session:
        job = submit(session)
        long_ago = {"created_at": clock.at(-1e6), "queued_at": clock.at(-1e6)}
        session.execute(update(JobRow).filter_by(id=job.id).values(**long_ago))
        before = clock.now(session)
        claim(session, "worker", 60)
        assert reread(session, job.id).started_at >= before


def take_all(sessions) -> list[str]:
    taken = []
    while True:
        with sessions.begin() as session:
            lease = claim(session, "a thread", 600)
        if lease is None:
            return taken
        taken.append(lease.job_id)


def test_no_two_threads_get_the_same_job(sessions):
    with sessions.begin() as session:
        model_id, dataset_id = add_model(session).id, add_dataset(session).id
        there = [submit(session, model_id=model_id, dataset_id=dataset_id).id for _ in range(24)]
    taken = together(*[lambda: take_all(sessions)] * 4)
    assert sorted(job_id for ids in taken for job_id in ids) == sorted(there)


def test_no_two_processes_get_the_same_job(sessions, database_url):
    with sessions.begin() as session:
        model_id, dataset_id = add_model(session).id, add_dataset(session).id
        there = [submit(session, model_id=model_id, dataset_id=dataset_id).id for _ in range(40)]
    command = [sys.executable, "-m", "tests.store.claimant", database_url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        subprocess.Popen(command, **pipes) as one,
        subprocess.Popen(command, **pipes) as two,
    ):
        assert one.stdout.readline() == two.stdout.readline() == "ready\n"
        for process in (one, two):
            process.stdin.write("go\n")
            process.stdin.flush()
        taken = one.stdout.read().split() + two.stdout.read().split()
    assert sorted(taken) == sorted(there)


def test_a_silent_job_taken_over_by_many_at_once_goes_to_one(sessions):
    with sessions.begin() as session:
        lease = held(session)
        fall_silent(session, lease.job_id)
    taken = together(*[lambda: take_all(sessions)] * 3)
    assert sorted(map(len, taken)) == [0, 0, 1]


def test_a_lease_that_has_run_out_is_taken_over(sessions):
    with sessions.begin() as session:
        old = held(session)
        assert claim(session, "another", 60) is None
        fall_silent(session, old.job_id)
        new = claim(session, "another", 60)
        assert (new.job_id, new.attempt) == (old.job_id, 2)
        assert new.token != old.token
        assert reread(session, old.job_id).lease_owner == "another"
        assert states(session, old.job_id) == ["queued", "running", "running"]


def test_the_first_start_is_the_start_of_the_job(sessions):
    with sessions.begin() as session:
        lease = held(session)
        started_at = reread(session, lease.job_id).started_at
        fall_silent(session, lease.job_id)
        claim(session, "another", 60)
        assert reread(session, lease.job_id).started_at == started_at


def test_a_renewed_lease_is_not_taken_over(sessions):
    with sessions.begin() as session:
        lease = held(session)
        fall_silent(session, lease.job_id)
        version = reread(session, lease.job_id).version
        assert renew(session, lease, 60) is False
        assert claim(session, "another", 60) is None
        assert reread(session, lease.job_id).version == version


def test_renewing_tells_of_a_cancellation(sessions):
    with sessions.begin() as session:
        lease = held(session)
        jobs.cancel(session, lease.job_id)
        assert renew(session, lease, 60) is True


WRITES = {
    "renew": lambda session, lease: renew(session, lease, 60),
    "release": lambda session, lease: release(session, lease, "it broke"),
    "give back": lambda session, lease: release(session, lease, None),
    "finish": lambda session, lease: finish(session, lease, JobState.SUCCEEDED),
    "fail": lambda session, lease: finish(session, lease, JobState.FAILED, reason={}),
    "phase": lambda session, lease: progress.phase(session, lease, "searching"),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_late_writer_is_refused_and_changes_nothing(sessions, write: str):
    with sessions.begin() as session:
        late = held(session)
        fall_silent(session, late.job_id)
        new = claim(session, "another", 60)
    with sessions.begin() as session:
        before = _columns(session, late.job_id)
        told = len(events.of_job(session, late.job_id))
        with pytest.raises(LeaseLostError, match=f"attempt 1 of job {late.job_id}"):
            WRITES[write](session, late)
        assert _columns(session, late.job_id) == before
        assert len(events.of_job(session, late.job_id)) == told
        WRITES[write](session, new)  # without this, refusing everybody passes


@pytest.mark.parametrize("write", WRITES)
def test_nothing_is_written_to_a_job_that_has_ended(sessions, write: str):
    with sessions.begin() as session:
        lease = held(session)
        finish(session, lease, JobState.SUCCEEDED)
        before = _columns(session, lease.job_id)
        with pytest.raises(LeaseLostError):
            WRITES[write](session, lease)
        assert _columns(session, lease.job_id) == before


def _columns(session, job_id: str) -> tuple[object, ...]:
    return tuple(session.execute(select(*JobRow.__table__.c).filter_by(id=job_id)).one())


def test_a_job_whose_process_broke_is_queued_again_and_keeps_its_place(sessions):
    with sessions.begin() as session:
        lease = held(session)
        submit(session)
        release(session, lease, "killed by signal 9")
        row = reread(session, lease.job_id)
        assert (row.state, row.phase, row.attempt) == (JobState.QUEUED, None, 1)
        assert row.lease_token is row.lease_until is row.lease_owner is None
        last = events.of_job(session, lease.job_id)[-1]
        assert last.payload == {"state": "queued", "attempt": 1, "error": "killed by signal 9"}
        again = claim(session, "another", 60)
        assert (again.job_id, again.attempt) == (lease.job_id, 2)


def test_a_job_that_breaks_every_attempt_ends_failed(sessions):
    with sessions.begin() as session:
        lease = held(session, max_attempts=2)
        release(session, lease, "out of memory")
        release(session, claim(session, "worker", 60), "out of memory")
        row = reread(session, lease.job_id)
        assert (row.state, row.attempt) == (JobState.FAILED, 2)
        assert row.reason == {"code": "worker_lost", "detail": "out of memory", "retryable": True}
        assert row.finished_at is not None
        assert claim(session, "worker", 60) is None
        assert states(session, lease.job_id) == ["queued", "running"] * 2 + ["failed"]
        assert events.of_job(session, lease.job_id)[-1].type == "done"


def test_a_job_whose_workers_all_fell_silent_ends_failed_and_the_next_one_is_claimed(sessions):
    with sessions.begin() as session:
        lease = held(session, max_attempts=2)
        fall_silent(session, lease.job_id)
        claim(session, "worker", 60)
        fall_silent(session, lease.job_id)
        other = submit(session)
        assert claim(session, "worker", 60).job_id == other.id
        row = reread(session, lease.job_id)
        assert (row.state, row.attempt) == (JobState.FAILED, 2)
        assert row.reason["code"] == "worker_lost"
        assert states(session, lease.job_id) == ["queued", "running", "running", "failed"]


def test_a_worker_that_shuts_down_in_good_order_spends_no_attempt(sessions):
    with sessions.begin() as session:
        lease = held(session, max_attempts=1)
        release(session, lease, None)
        assert reread(session, lease.job_id).state is JobState.QUEUED
        again = claim(session, "another", 60)
        assert again.attempt == 1
        assert again.token != lease.token


def test_a_cancelled_job_whose_worker_fell_silent_ends_with_the_next_claim(sessions):
    with sessions.begin() as session:
        lease = held(session)
        jobs.cancel(session, lease.job_id)
        fall_silent(session, lease.job_id)
        urgent = submit(session, priority=9)
        assert claim(session, "another", 60).job_id == urgent.id
        row = reread(session, lease.job_id)
        assert (row.state, row.attempt) == (JobState.CANCELLED, 1)
        assert states(session, lease.job_id) == ["queued", "running", "cancelling", "cancelled"]


def test_a_cancelled_job_whose_process_broke_is_not_queued_again(sessions):
    with sessions.begin() as session:
        lease = held(session)
        jobs.cancel(session, lease.job_id)
        release(session, lease, "killed by signal 15")
        row = reread(session, lease.job_id)
        assert (row.state, row.reason) == (JobState.CANCELLED, None)


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED])
def test_a_job_that_was_told_to_stop_ends_cancelled_whatever_came_of_it(sessions, state: JobState):
    with sessions.begin() as session:
        lease = held(session)
        progress.best(session, lease, {"speedup": 1.6})
        jobs.cancel(session, lease.job_id)
        ended = finish(session, lease, state, verdict="budget_met", reason={"code": "timeout"})
        row = reread(session, lease.job_id)
        assert ended is row.state is JobState.CANCELLED
        assert row.verdict is row.reason is None
        assert row.best == {"speedup": 1.6}


def test_a_finished_job_holds_its_verdict(sessions):
    with sessions.begin() as session:
        lease = held(session)
        version = reread(session, lease.job_id).version
        ended = finish(
            session, lease, JobState.SUCCEEDED, verdict="budget_met", stopped_by="deadline"
        )
        row = reread(session, lease.job_id)
        assert ended is row.state is JobState.SUCCEEDED
        assert (row.verdict, row.stopped_by, row.phase) == ("budget_met", "deadline", None)
        assert row.finished_at >= row.started_at
        assert row.version > version
        state, done = events.of_job(session, lease.job_id)[-2:]
        assert state.payload == {
            "state": "succeeded",
            "verdict": "budget_met",
            "stopped_by": "deadline",
            "reason": None,
        }
        assert (done.type, done.payload) == ("done", {"state": "succeeded"})


def test_a_job_cancelled_while_it_finishes_has_succeeded(sessions):
    with sessions.begin() as session:
        lease = held(session)
    _, row = overtaken(
        sessions,
        lambda session: finish(session, lease, JobState.SUCCEEDED, verdict="no_gain"),
        lambda session: jobs.cancel(session, lease.job_id),
    )
    assert (row.state, row.verdict) == (JobState.SUCCEEDED, "no_gain")


def test_a_job_that_finishes_while_it_is_cancelled_is_cancelled(sessions):
    with sessions.begin() as session:
        lease = held(session)
    _, state = overtaken(
        sessions,
        lambda session: jobs.cancel(session, lease.job_id),
        lambda session: finish(session, lease, JobState.SUCCEEDED, verdict="no_gain"),
    )
    assert state is JobState.CANCELLED


def test_a_late_worker_that_renews_while_it_is_overtaken_has_lost_the_job(sessions):
    with sessions.begin() as session:
        late = held(session)
        fall_silent(session, late.job_id)
    with pytest.raises(LeaseLostError):
        overtaken(
            sessions,
            lambda session: claim(session, "another", 60),
            lambda session: renew(session, late, 60),
        )


def test_a_job_that_is_renewed_in_the_last_moment_is_not_taken_over(sessions):
    with sessions.begin() as session:
        late = held(session)
        fall_silent(session, late.job_id)
    _, lease = overtaken(
        sessions,
        lambda session: renew(session, late, 60),
        lambda session: claim(session, "another", 60),
    )
    assert lease is None
