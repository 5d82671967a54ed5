import pytest
from sqlalchemy.exc import OperationalError

from service.store import lease as leases
from service.store import progress
from service.store.errors import LeaseLostError
from service.store.lease import Lease
from tests.workers.jobs import read, submit
from workers import journal as journals
from workers.journal import Journal


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "PAUSE_SECONDS", 0.0)


def claimed(sessions) -> Lease:
    submit(sessions)
    with sessions.begin() as session:
        lease = leases.claim(session, "a test", 30.0)
    assert lease is not None
    return lease


class Flaky:
    """A step that fails with a lost connection so many times before it works."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0

    def __call__(self, session, lease, name: str) -> None:
        self.calls += 1
        progress.phase(session, lease, name)
        if self.calls <= self.failures:
            raise OperationalError("", {}, Exception("the server closed the connection"))


def test_a_step_is_committed(sessions):
    lease = claimed(sessions)
    Journal(sessions, lease, patience_seconds=5).write(progress.phase, "searching")
    assert read(sessions, lease.job_id).phase == "searching"


def test_a_step_that_the_database_cut_off_is_taken_again_and_counts_once(sessions):
    lease, step = claimed(sessions), Flaky(2)
    before = read(sessions, lease.job_id).version
    Journal(sessions, lease, patience_seconds=30).write(step, "searching")
    assert step.calls == 3
    after = read(sessions, lease.job_id)
    assert (after.phase, after.version) == ("searching", before + 1)


def test_a_database_that_stays_away_is_not_waited_for_without_end(sessions):
    lease = claimed(sessions)
    with pytest.raises(OperationalError):
        Journal(sessions, lease, patience_seconds=0.0).write(Flaky(10**9), "searching")
    assert read(sessions, lease.job_id).phase == "loading"


def test_after_a_lost_lease_nothing_is_written(sessions):
    lease = claimed(sessions)
    late = Journal(sessions, Lease(lease.job_id, "an old token", 1), patience_seconds=5)
    with pytest.raises(LeaseLostError):
        late.write(progress.phase, "searching")
    assert read(sessions, lease.job_id).phase == "loading"
