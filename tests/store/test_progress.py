import pytest
from sqlalchemy.orm import Session

from service.store import clock, events, progress
from service.store.errors import LeaseLostError
from service.store.lease import claim, finish
from service.store.session import reading
from service.store.tables import JobState
from tests.store.rows import fall_silent, held, reread
from tests.store.together import overtaken

STEPS = {
    "phase": (progress.phase, ("searching",), {}),
    "baseline": (progress.baseline, ({"metric": 93.6},), {}),
    "best": (progress.best, ({"speedup": 1.6},), {}),
    "progress": (progress.progress, ({"fraction": 0.4},), {}),
    "table": (progress.table, ("0" * 64,), {}),
    "condition": (
        progress.condition,
        (),
        {"type": "BaselineMeasured", "status": "true", "reason": "ok", "message": "93.60"},
    ),
}


@pytest.mark.parametrize("step", STEPS)
def test_what_the_process_tells_is_a_change_of_the_job(sessions, step: str):
    function, values, named = STEPS[step]
    with sessions.begin() as session:
        lease = held(session)
        before = reread(session, lease.job_id)
        version, changed_at = before.version, before.updated_at
        function(session, lease, *values, **named)
        after = reread(session, lease.job_id)
        assert after.version > version
        assert after.updated_at >= changed_at
        column = {"table": "table_sha256", "condition": "conditions"}.get(step, step)
        stored = getattr(after, column)
        if step == "condition":
            assert [{**named, "at": stored[0]["at"]}] == stored
        else:
            assert stored == values[0]


@pytest.mark.parametrize("step", STEPS)
def test_a_late_process_is_refused(sessions, step: str):
    function, values, named = STEPS[step]
    with sessions.begin() as session:
        lease = held(session)
        fall_silent(session, lease.job_id)
        new = claim(session, "another", 60)
        with pytest.raises(LeaseLostError):
            function(session, lease, *values, **named)
        finish(session, new, JobState.SUCCEEDED)
        with pytest.raises(LeaseLostError):
            function(session, new, *values, **named)


@pytest.mark.parametrize("step", ["phase", "best", "progress"])
def test_phase_best_and_progress_are_events(sessions, step: str):
    function, values, _ = STEPS[step]
    with sessions.begin() as session:
        lease = held(session)
        function(session, lease, *values)
        event = events.of_job(session, lease.job_id)[-1]
        payload = {"phase": "searching"} if step == "phase" else values[0]
        assert (event.type, event.payload) == (step, payload)


def test_there_is_one_condition_of_each_type(sessions):
    with sessions.begin() as session:
        lease = held(session)
        before = clock.now(session)
        for type_, status in [("Feasible", "unknown"), ("Measured", "true"), ("Feasible", "true")]:
            progress.condition(session, lease, type=type_, status=status, reason="ok")
        stored = reread(session, lease.job_id).conditions
        assert [(c["type"], c["status"]) for c in stored] == [
            ("Feasible", "true"),
            ("Measured", "true"),
        ]
        assert all(c["at"] >= before.isoformat()[:19] for c in stored)


def test_conditions_set_at_once_are_all_kept(sessions):
    with sessions.begin() as session:
        lease = held(session)

    def tell(session: Session, type_: str) -> None:
        progress.condition(session, lease, type=type_, status="true", reason="ok")

    overtaken(sessions, lambda session: tell(session, "A"), lambda session: tell(session, "B"))
    with reading(sessions) as session:
        stored = reread(session, lease.job_id).conditions
        assert [condition["type"] for condition in stored] == ["A", "B"]
