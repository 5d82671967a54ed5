import pytest

from service.store import candidates, events
from service.store.errors import CursorError, LeaseLostError, NotFoundError
from service.store.lease import Lease, claim
from service.store.session import reading
from service.store.tables import CandidateRow
from tests.store.rows import fall_silent, held, reread
from tests.store.together import together


def record(session, lease: Lease, key: str, **values) -> CandidateRow:
    costs = {"loss": 0.1, "violation": -0.4, "time_share": 0.5, "parameter_share": 0.3}
    told = {
        "point": (1, 0, 2),
        "plan": {"layers": {"0": {"method": "svd", "ranks": [16]}}},
        "state": "complete",
        "costs": costs,
        "measured": {"loss": 0.1},
        "reason": None,
        "seconds": 1.5,
    }
    return candidates.record(session, lease, key=key, **{**told, **values})


def test_an_evaluation_is_stored_as_it_was_told(sessions):
    with sessions.begin() as session:
        lease = held(session)
        version = reread(session, lease.job_id).version
        row_id = record(session, lease, "a").id
        assert reread(session, lease.job_id).version > version
    with reading(sessions) as session:
        row = candidates.get(session, row_id)
        assert (row.job_id, row.key, row.sequence, row.attempt) == (lease.job_id, "a", 1, 1)
        assert (row.point, row.state, row.seconds) == ([1, 0, 2], "complete", 1.5)
        assert row.plan == {"layers": {"0": {"method": "svd", "ranks": [16]}}}
        event = events.of_job(session, lease.job_id)[-1]
        assert (event.type, event.payload["candidate"]) == ("candidate", row_id)


def test_an_evaluation_told_again_changes_nothing(sessions):
    with sessions.begin() as session:
        lease = held(session)
        first = record(session, lease, "a")
        told = len(events.of_job(session, lease.job_id))
        fall_silent(session, lease.job_id)
        new = claim(session, "another", 60)
    with sessions.begin() as session:
        again = record(session, new, "a", state="failed", reason="later", costs={})
        assert (again.id, again.state, again.attempt) == (first.id, "complete", 1)
        kinds = [event.type for event in events.of_job(session, lease.job_id)]
        assert kinds.count("candidate") == 1
        assert len(kinds) == told + 2  # the second claim
        assert record(session, new, "b").sequence == 2


def test_a_late_process_records_nothing(sessions):
    with sessions.begin() as session:
        lease = held(session)
        fall_silent(session, lease.job_id)
        claim(session, "another", 60)
        with pytest.raises(LeaseLostError):
            record(session, lease, "a")
        assert candidates.all_of_job(session, lease.job_id) == []


def test_the_past_is_read_in_the_order_it_was_recorded(sessions):
    with sessions.begin() as session:
        lease = held(session)
        other = held(session)
        for key in ("c", "a", "b"):
            record(session, lease, key)
            record(session, other, key)
        rows = candidates.all_of_job(session, lease.job_id)
        assert [(row.key, row.sequence) for row in rows] == [("c", 1), ("a", 2), ("b", 3)]


def test_evaluations_recorded_at_once_are_numbered_without_a_gap(sessions):
    with sessions.begin() as session:
        lease = held(session)

    def tell(keys: str) -> None:
        for key in keys:
            with sessions.begin() as session:
                record(session, lease, key)

    together(lambda: tell("abcd"), lambda: tell("dcba"), lambda: tell("efgh"))
    with reading(sessions) as session:
        rows = candidates.all_of_job(session, lease.job_id)
    assert [row.sequence for row in rows] == list(range(1, 9))
    assert sorted(row.key for row in rows) == list("abcdefgh")


def costs(loss: float | None, time: float | None, parameters: float | None) -> dict[str, object]:
    return {
        "loss": loss,
        "violation": loss,
        "time_share": time,
        "parameter_share": parameters,
        "mac_share": parameters,
        "cost": time,
    }


COSTS = {
    "a": costs(0.5, 0.9, 0.125),
    "b": costs(None, None, None),
    "c": costs(-0.25, 0.3, 0.75),
    "d": costs(0.0625, 0.7, 0.5),
    "e": costs(0.0625, 10.5, 0.5),
}


@pytest.mark.parametrize(
    ("sort", "key"),
    [
        ("cost", "cost"),
        ("loss", "loss"),
        ("latency", "time_share"),
        ("macs", "mac_share"),
        ("parameters", "parameter_share"),
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 9])
def test_pages_go_from_the_best_to_the_failed(sessions, sort: str, key: str, limit: int):
    with sessions.begin() as session:
        lease = held(session)
        for name, told in COSTS.items():
            record(session, lease, name, costs=told, state="failed" if name == "b" else "complete")
    seen: list[CandidateRow] = []
    with reading(sessions) as session:
        while rows := candidates.of_job(
            session, lease.job_id, after=seen[-1].id if seen else None, limit=limit, sort=sort
        ):
            seen += rows
    values = [row.costs[key] for row in seen]
    assert values[:-1] == sorted(told[key] for told in COSTS.values() if told[key] is not None)
    assert seen[-1].key == "b"


def test_pages_go_from_the_newest_to_the_oldest_and_hold_one_job(sessions):
    with sessions.begin() as session:
        lease, other = held(session), held(session)
        for key in "abcde":
            record(session, lease, key)
            record(session, other, key)
        first = candidates.of_job(session, lease.job_id, limit=3)
        second = candidates.of_job(session, lease.job_id, after=first[-1].id, limit=3)
        assert [row.key for row in [*first, *second]] == list("edcba")
        assert {row.job_id for row in [*first, *second]} == {lease.job_id}


def test_an_unknown_candidate_is_refused(sessions):
    with sessions.begin() as session:
        lease = held(session)
        with pytest.raises(NotFoundError, match="no candidate has the id cnd_none"):
            candidates.get(session, "cnd_none")
        with pytest.raises(CursorError, match="cnd_none"):
            candidates.of_job(session, lease.job_id, after="cnd_none")


def test_candidates_are_counted_by_state(sessions):
    with sessions.begin() as session:
        lease = held(session)
        assert candidates.counts(session, lease.job_id) == {}
        for key, state in [("a", "complete"), ("b", "failed"), ("c", "complete")]:
            record(session, lease, key, state=state)
        assert candidates.counts(session, lease.job_id) == {"complete": 2, "failed": 1}
