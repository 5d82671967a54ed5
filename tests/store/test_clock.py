from datetime import UTC, datetime, timedelta

from sqlalchemy import literal, select

from service.store import clock
from service.store.tables import Moment

# Anything short of a wrong time zone.
SLACK = timedelta(minutes=5)


def test_the_clock_of_the_database_is_utc(sessions):
    with sessions() as session:
        now = clock.now(session)
    assert now.utcoffset() == timedelta(0)
    assert abs(now - datetime.now(UTC)) < SLACK


def test_seconds_are_added_and_taken_away(sessions):
    with sessions() as session:
        past, now, future = session.execute(
            select(clock.at(-86400.5), clock.at(0), clock.at(86400.5))
        ).one()
    day = timedelta(seconds=86400.5)
    assert abs(future - now - day) < timedelta(seconds=60)
    assert abs(now - past - day) < timedelta(seconds=60)


def test_the_clock_compares_with_the_moments_of_a_program(sessions):
    with sessions() as session:
        now = clock.now(session)
        earlier, later = (
            literal(now + timedelta(minutes=minutes), Moment()) for minutes in (-1, 1)
        )
        between = select(clock.at(0) > earlier, clock.at(0) < later, clock.at(120) < later)
        assert tuple(session.execute(between).one()) == (True, True, False)


def test_time_goes_on_within_a_transaction(sessions):
    with sessions.begin() as session:
        first = clock.now(session)
        while clock.now(session) == first:  # ends with the next millisecond
            pass
        assert clock.now(session) > first


def test_the_clock_tells_parts_of_a_second(sessions):
    with sessions.begin() as session:
        assert any(clock.now(session).microsecond >= 1000 for _ in range(100))
