import subprocess
import sys

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError, StatementError

from service.store import jobs
from service.store.session import reading
from service.store.tables import JobRow
from tests.store.rows import submit
from tests.store.together import together


def test_writers_that_read_first_wait_for_each_other(sessions):
    with sessions.begin() as session:
        job_id = submit(session).id

    def count_up() -> None:
        for _ in range(15):
            with sessions.begin() as session:
                seen = session.scalars(
                    select(JobRow.priority).filter_by(id=job_id).with_for_update()
                ).one()
                session.execute(update(JobRow).filter_by(id=job_id).values(priority=seen + 1))

    together(*[count_up] * 4)
    with reading(sessions) as session:
        assert jobs.get(session, job_id).priority == 4 * 15


def test_a_reader_does_not_wait_for_a_writer_and_does_not_see_what_is_not_committed(sessions):
    with sessions.begin() as writing:
        job_id = submit(writing).id
        with reading(sessions) as session:
            assert session.get(JobRow, job_id) is None
    with reading(sessions) as session:
        assert session.get(JobRow, job_id) is not None


def test_a_reading_session_refuses_to_write_and_a_later_writer_does_not(sessions):
    with reading(sessions) as session, pytest.raises(DBAPIError, match=r"read.?only"):
        submit(session)
    with sessions.begin() as session:  # over the very connection that was read-only
        submit(session)


def test_a_failed_transaction_leaves_nothing(sessions):
    def fail() -> None:
        with sessions.begin() as session:
            submit(session)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with reading(sessions) as session:
        assert jobs.listed(session) == []


def test_a_deleted_parent_is_refused_by_the_database_itself(sessions):
    with sessions.begin() as session:
        job = submit(session)
    with pytest.raises(DBAPIError, match=r"(?i)foreign key"), sessions.begin() as session:
        session.execute(update(JobRow).filter_by(id=job.id).values(model_id="mod_none"))


def test_nan_is_no_json(sessions):
    with sessions() as session, pytest.raises((StatementError, ValueError), match="JSON compliant"):
        submit(session, request={"loss": float("nan")})


PROGRAM = """
import sys
from service.store.session import make_engine, make_sessions, reading
from service.store import jobs
engine = make_engine(sys.argv[1])
with reading(make_sessions(engine)) as session:
    jobs.listed(session)
engine.dispose()
"""


def test_a_program_that_disposes_its_engine_ends_without_a_warning(database_url):
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, database_url]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
