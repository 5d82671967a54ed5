import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import aliased

from service.store import events, jobs
from service.store.errors import CursorError, NameTakenError, NotFoundError, StateConflictError
from service.store.lease import claim, finish, release
from service.store.session import reading
from service.store.tables import JobRow, JobState
from tests.store.rows import fall_silent, held, reread, submit
from tests.store.together import overtaken, together


def submitted_in(session, state: JobState) -> str:
    """A job that has come into a state by the way that leads there."""
    if state is JobState.QUEUED:
        return submit(session).id
    if state is JobState.EXPIRED:
        job_id = submit(session).id
        session.execute(update(JobRow).filter_by(id=job_id).values(state=state))
        return job_id
    lease = held(session)
    if state is JobState.CANCELLING:
        jobs.cancel(session, lease.job_id)
    elif state is not JobState.RUNNING:
        finish(session, lease, state)
    return lease.job_id


def kinds(session, job_id: str) -> list[tuple[str, str | None]]:
    return [(event.type, event.payload.get("state")) for event in events.of_job(session, job_id)]


def test_a_submitted_job_waits_as_it_was_ordered(sessions):
    order = {"budget": {"max_loss": 0.5, "unit": "points"}, "methods": ["svd"]}
    with sessions.begin() as session:
        job = submit(session, request=order, name="mine", labels={"team": "edge"}, priority=3)
    with reading(sessions) as session:
        row = jobs.get(session, job.id)
        assert (row.request, row.name, row.labels) == (order, "mine", {"team": "edge"})
        assert (row.state, row.attempt, row.version) == (JobState.QUEUED, 0, 1)
        assert (row.priority, row.max_attempts) == (3, 3)
        assert row.best is row.reason is row.started_at is row.finished_at is None
        assert kinds(session, job.id) == [("state", "queued")]


def test_a_job_needs_a_model_and_a_dataset(sessions):
    with sessions.begin() as session:
        with pytest.raises(NotFoundError) as caught:
            submit(session, model_id="mod_none")
        assert caught.value.kind == "model"
        with pytest.raises(NotFoundError) as caught:
            submit(session, dataset_id="dat_none")
        assert caught.value.kind == "dataset"


def test_a_name_is_given_once_and_no_name_often(sessions):
    with sessions.begin() as session:
        submit(session, name="mine")
        with pytest.raises(NameTakenError, match="'mine': choose a new one"):
            submit(session, name="mine")
        submit(session)
        submit(session)
        assert len(jobs.listed(session)) == 3


def test_a_name_wanted_by_two_at_once_goes_to_one(sessions):
    def order() -> bool:
        try:
            with sessions.begin() as session:
                submit(session, name="mine")
        except NameTakenError:
            return False
        return True

    assert sorted(together(order, order)) == [False, True]


def test_an_unknown_job_is_not_found(sessions):
    with sessions.begin() as session:
        for function in (jobs.get, jobs.cancel, jobs.delete):
            with pytest.raises(NotFoundError, match="no job has the id job_none"):
                function(session, "job_none")


def test_a_queued_job_is_cancelled_at_once(sessions):
    with sessions.begin() as session:
        job_id = submitted_in(session, JobState.QUEUED)
        before = reread(session, job_id).version
        row = jobs.cancel(session, job_id)
        assert row.state is JobState.CANCELLED
        assert row.finished_at is not None
        assert row.version > before
        assert claim(session, "worker", 60) is None
        told = [("state", "queued"), ("state", "cancelled"), ("done", "cancelled")]
        assert kinds(session, job_id) == told


def test_a_running_job_is_told_to_stop_and_told_once(sessions):
    with sessions.begin() as session:
        job_id = submitted_in(session, JobState.RUNNING)
        row = jobs.cancel(session, job_id)
        assert row.state is JobState.CANCELLING
        assert row.cancel_requested
        assert row.finished_at is None
        version, told = row.version, kinds(session, job_id)
        assert told[-1] == ("state", "cancelling")
        assert jobs.cancel(session, job_id).version == version
        assert kinds(session, job_id) == told


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.CANCELLING])
def test_a_job_whose_worker_has_fallen_silent_is_cancelled_at_once(sessions, state: JobState):
    with sessions.begin() as session:
        job_id = submitted_in(session, state)
        fall_silent(session, job_id)
        row = jobs.cancel(session, job_id)
        assert (row.state, row.lease_token) == (JobState.CANCELLED, None)
        assert kinds(session, job_id)[-1] == ("done", "cancelled")


ENDED = [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED]


@pytest.mark.parametrize("state", ENDED)
def test_a_job_that_has_ended_is_not_changed_by_cancelling(sessions, state: JobState):
    with sessions.begin() as session:
        job_id = submitted_in(session, state)
        version, told = reread(session, job_id).version, kinds(session, job_id)
        row = jobs.cancel(session, job_id)
        assert (row.state, row.version, row.cancel_requested) == (state, version, False)
        assert kinds(session, job_id) == told


@pytest.mark.parametrize("state", ENDED)
def test_a_job_that_has_ended_can_be_deleted(sessions, state: JobState):
    with sessions.begin() as session:
        job_id = submitted_in(session, state)
        jobs.delete(session, job_id)
        with pytest.raises(NotFoundError):
            jobs.get(session, job_id)
        assert events.of_job(session, job_id) == []


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING])
def test_a_job_that_has_not_ended_cannot_be_deleted(sessions, state: JobState):
    with sessions.begin() as session:
        job_id = submitted_in(session, state)
        with pytest.raises(StateConflictError, match=f"is {state}, one that has ended"):
            jobs.delete(session, job_id)
        assert jobs.get(session, job_id).state is state


def test_cancelling_while_it_is_claimed_tells_the_worker(sessions):
    with sessions.begin() as session:
        job_id = submit(session).id
    lease, row = overtaken(
        sessions,
        lambda session: claim(session, "worker", 60),
        lambda session: jobs.cancel(session, job_id),
    )
    assert lease is not None
    assert row.state is JobState.CANCELLING


def test_a_job_that_is_cancelled_while_it_is_claimed_does_not_start(sessions):
    with sessions.begin() as session:
        job_id = submit(session).id
    row, lease = overtaken(
        sessions,
        lambda session: jobs.cancel(session, job_id),
        lambda session: claim(session, "worker", 60),
    )
    assert row.state is JobState.CANCELLED
    assert lease is None


def test_cancelling_a_job_that_is_queued_again_in_this_moment_is_not_lost(sessions):
    with sessions.begin() as session:
        lease = held(session)
    _, row = overtaken(
        sessions,
        lambda session: release(session, lease, "killed by signal 9"),
        lambda session: jobs.cancel(session, lease.job_id),
    )
    assert row.state is JobState.CANCELLED


def pages(session, limit: int, **filters) -> list[str]:
    """All pages of a list, one after the other."""
    ids: list[str] = []
    while rows := jobs.listed(session, after=ids[-1] if ids else None, limit=limit, **filters):
        assert len(rows) <= limit
        assert not {row.id for row in rows} & set(ids)
        ids += [row.id for row in rows]
    return ids


def test_a_list_that_grows_while_it_is_read_repeats_nothing_and_leaves_out_nothing(sessions):
    with sessions.begin() as session:
        there = [submit(session).id for _ in range(7)]
    seen: list[str] = []
    while True:
        with reading(sessions) as session:
            rows = jobs.listed(session, after=seen[-1] if seen else None, limit=2)
        if not rows:
            break
        seen += [row.id for row in rows]
        with sessions.begin() as session:
            submit(session)
    assert seen == there[::-1]


def test_jobs_of_one_moment_are_told_apart_by_their_ids(sessions):
    with sessions.begin() as session:
        there = [submit(session).id for _ in range(5)]
        one_moment = select(func.max(aliased(JobRow).created_at)).scalar_subquery()
        session.execute(update(JobRow).values(created_at=one_moment))
        assert pages(session, 2) == sorted(there, reverse=True)


def test_lists_hold_what_was_asked_for(sessions):
    with sessions.begin() as session:
        done = held(session)
        finish(session, done, JobState.SUCCEEDED, verdict="budget_met")
        poor = held(session)
        finish(session, poor, JobState.SUCCEEDED, verdict="no_gain")
        waiting = submit(session)
        assert pages(session, 1, state=JobState.SUCCEEDED) == [poor.job_id, done.job_id]
        assert pages(session, 9, verdict="budget_met") == [done.job_id]
        assert pages(session, 9, model_id=waiting.model_id) == [waiting.id]
        assert pages(session, 9, state=JobState.QUEUED, verdict="no_gain") == []


def test_a_page_goes_on_after_a_job_that_no_longer_matches(sessions):
    with sessions.begin() as session:
        first, second, third = (submit(session).id for _ in range(3))
        assert [row.id for row in jobs.listed(session, limit=1, state=JobState.QUEUED)] == [third]
        jobs.cancel(session, third)
        rest = jobs.listed(session, after=third, state=JobState.QUEUED)
        assert [row.id for row in rest] == [second, first]


def test_a_cursor_that_is_no_job_is_refused(sessions):
    with reading(sessions) as session, pytest.raises(CursorError, match="job_none"):
        jobs.listed(session, after="job_none")
