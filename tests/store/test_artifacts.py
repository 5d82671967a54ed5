import pytest

from service.store import artifacts, events, jobs
from service.store.artifacts import File
from service.store.errors import LeaseLostError, NotFoundError
from service.store.lease import claim, finish
from service.store.tables import JobState
from tests.store.rows import fall_silent, held, reread

WEIGHTS = File("model.safetensors", "application/octet-stream", "a" * 64, 1000)
REPORT = File("report.md", "text/markdown", "b" * 64, 20)


def test_what_was_published_is_the_result(sessions):
    with sessions.begin() as session:
        lease = held(session)
        version = reread(session, lease.job_id).version
        published = artifacts.publish(session, lease, [tuple(REPORT), WEIGHTS])
        rows = artifacts.of_job(session, lease.job_id)
        assert [(r.name, r.media_type, r.sha256, r.size_bytes) for r in rows] == [WEIGHTS, REPORT]
        assert {row.id for row in rows} == {row.id for row in published}
        assert artifacts.get(session, rows[0].id).name == WEIGHTS.name
        assert reread(session, lease.job_id).version > version
        told = [e.payload for e in events.of_job(session, lease.job_id) if e.type == "artifact"]
        assert [payload["name"] for payload in told] == [REPORT.name, WEIGHTS.name]


def test_publishing_again_replaces_all(sessions):
    with sessions.begin() as session:
        lease = held(session)
        artifacts.publish(session, lease, [WEIGHTS, REPORT])
        artifacts.publish(session, lease, [WEIGHTS._replace(sha256="c" * 64)])
        (row,) = artifacts.of_job(session, lease.job_id)
        assert (row.name, row.sha256) == (WEIGHTS.name, "c" * 64)


def test_a_late_process_publishes_nothing(sessions):
    with sessions.begin() as session:
        lease = held(session)
        artifacts.publish(session, lease, [WEIGHTS])
        fall_silent(session, lease.job_id)
        claim(session, "another", 60)
        with pytest.raises(LeaseLostError):
            artifacts.publish(session, lease, [REPORT])
        assert [row.name for row in artifacts.of_job(session, lease.job_id)] == [WEIGHTS.name]


def test_artifacts_go_with_their_job(sessions):
    with sessions.begin() as session:
        lease = held(session)
        (row,) = artifacts.publish(session, lease, [WEIGHTS])
        finish(session, lease, JobState.SUCCEEDED)
        row_id = row.id
        jobs.delete(session, lease.job_id)
    with sessions.begin() as session, pytest.raises(NotFoundError, match=row_id):
        artifacts.get(session, row_id)
