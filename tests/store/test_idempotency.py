import pytest
from sqlalchemy import func, select, update
from sqlalchemy.exc import NoResultFound

from service.store import clock, idempotency, jobs
from service.store.errors import IdempotencyReusedError
from service.store.session import reading
from service.store.tables import IdempotencyRow
from tests.store.rows import submit
from tests.store.together import overtaken, together

SCOPE = "token POST /v1/jobs"


def answer(sessions, key: str, body: str = "0" * 64, *, scope: str = SCOPE) -> tuple[str, bool]:
    """What a route does: the id of the job, and whether it was replayed."""
    with sessions.begin() as session:
        row = idempotency.find(session, scope, key, body)
        if row is not None:
            return row.body["id"], True
        job_id = submit(session, name=f"{scope} {key}").id
        idempotency.keep(
            session,
            scope,
            key,
            status=202,
            headers={"Location": f"/v1/jobs/{job_id}"},
            body={"id": job_id},
        )
        return job_id, False


def test_a_second_request_gets_the_answer_of_the_first(sessions):
    job_id, replayed = answer(sessions, "k")
    assert not replayed
    assert answer(sessions, "k") == (job_id, True)
    with sessions.begin() as session:
        row = idempotency.find(session, SCOPE, "k", "0" * 64)
        assert (row.status, row.headers) == (202, {"Location": f"/v1/jobs/{job_id}"})
        assert len(jobs.listed(session)) == 1


def test_another_key_or_another_scope_is_another_request(sessions):
    first, _ = answer(sessions, "k")
    second, _ = answer(sessions, "l")
    third, _ = answer(sessions, "k", scope="token POST /v1/models")
    assert len({first, second, third}) == 3


def test_a_key_with_another_body_is_refused(sessions):
    answer(sessions, "k")
    with pytest.raises(IdempotencyReusedError, match="'k' came before with another body"):
        answer(sessions, "k", "1" * 64)


def test_first_requests_at_once_become_one_job_and_one_answer(sessions):
    answers = together(*[lambda: answer(sessions, "k")] * 4)
    assert len({job_id for job_id, _ in answers}) == 1
    assert sorted(replayed for _, replayed in answers) == [False, True, True, True]
    with reading(sessions) as session:
        assert session.scalar(select(func.count()).select_from(IdempotencyRow)) == 1
        assert len(jobs.listed(session)) == 1


def test_a_request_that_failed_leaves_its_key_to_the_next(sessions):
    def fail() -> None:
        with sessions.begin() as session:
            assert idempotency.find(session, SCOPE, "k", "0" * 64) is None
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert answer(sessions, "k", "1" * 64)[1] is False


def test_a_key_that_was_taken_and_never_answered_is_the_next_ones(sessions):
    with sessions.begin() as session:
        assert idempotency.find(session, SCOPE, "k", "0" * 64) is None
    assert answer(sessions, "k", "1" * 64)[1] is False


def test_a_request_that_waited_for_one_without_an_answer_is_the_first(sessions):
    first, second = overtaken(
        sessions,
        lambda session: idempotency.find(session, SCOPE, "k", "0" * 64),
        lambda session: idempotency.find(session, SCOPE, "k", "1" * 64),
    )
    assert first is second is None


def test_an_answer_needs_its_key(sessions):
    with pytest.raises(NoResultFound), sessions.begin() as session:
        idempotency.keep(session, SCOPE, "k", status=202, headers={}, body={})


@pytest.mark.parametrize("is_swept", [True, False])
def test_an_answer_is_kept_for_a_day(sessions, is_swept: bool):
    first, _ = answer(sessions, "old")
    answer(sessions, "young")
    with sessions.begin() as session:
        jobs.cancel(session, first)
        jobs.delete(session, first)
        day = idempotency.KEPT_SECONDS
        for key, age in [("old", day + 60), ("young", day - 60)]:
            session.execute(
                update(IdempotencyRow).filter_by(key=key).values(created_at=clock.at(-age))
            )
        if is_swept:
            idempotency.sweep(session)
            assert list(session.scalars(select(IdempotencyRow.key))) == ["young"]
    assert answer(sessions, "old")[1] is False
    assert answer(sessions, "young")[1] is True
