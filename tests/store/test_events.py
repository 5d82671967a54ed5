from threading import Event

import pytest

from service.store import events, jobs
from service.store.errors import NotFoundError
from service.store.session import reading
from tests.store.rows import held, submit
from tests.store.together import together


def test_events_are_paged_by_their_numbers(sessions):
    with sessions.begin() as session:
        job_id = submit(session).id
        for number in range(5):
            events.append(session, job_id, "warning", {"number": number})
            events.append(session, submit(session).id, "warning", {"number": -1})
    with reading(sessions) as session:
        first = events.of_job(session, job_id, limit=3)
        rest = events.of_job(session, job_id, after=first[-1].sequence, limit=99)
        told = [event.payload.get("number") for event in [*first, *rest]]
        assert told == [None, 0, 1, 2, 3, 4]
        assert events.of_job(session, job_id, after=rest[-1].sequence) == []
        assert first[0].at.utcoffset().total_seconds() == 0


def test_an_event_needs_its_job(sessions):
    with sessions.begin() as session, pytest.raises(NotFoundError, match="job_none"):
        events.append(session, "job_none", "warning", {})


def test_a_reader_that_goes_by_numbers_misses_nothing_of_many_writers(sessions):
    with sessions.begin() as session:
        job_id = held(session).job_id
    is_over = Event()

    def write(writer: int) -> list[int]:
        for number in range(20):
            with sessions.begin() as session:
                events.append(session, job_id, "warning", {"writer": writer, "number": number})
                events.append(session, job_id, "warning", {"writer": writer, "number": number})
        return []

    def read() -> list[int]:
        seen: list[int] = []
        while True:
            is_last_look = is_over.is_set()
            with reading(sessions) as session:
                after = seen[-1] if seen else 0
                seen += [e.sequence for e in events.of_job(session, job_id, after=after)]
            if is_last_look:
                return seen

    def write_all() -> list[int]:
        try:
            together(*[lambda writer=writer: write(writer) for writer in range(4)])
        finally:
            is_over.set()
        return []

    seen, _ = together(read, write_all)
    with reading(sessions) as session:
        there = [event.sequence for event in events.of_job(session, job_id, limit=1000)]
    assert len(there) == 3 + 4 * 20 * 2
    assert seen == there


def test_an_event_and_its_change_are_committed_together(sessions):
    with sessions.begin() as session:
        job_id = submit(session).id

    def fail() -> None:
        with sessions.begin() as session:
            jobs.cancel(session, job_id)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with reading(sessions) as session:
        assert jobs.get(session, job_id).state == "queued"
        assert [event.payload["state"] for event in events.of_job(session, job_id)] == ["queued"]
