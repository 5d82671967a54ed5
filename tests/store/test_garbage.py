from pathlib import Path

from service.store import artifacts, datasets, garbage, jobs, models, progress
from service.store.blobs import Blobs
from service.store.lease import finish
from service.store.session import reading
from service.store.tables import JobState
from tests.store.rows import add_dataset, add_model, held


def put(blobs: Blobs, content: bytes) -> str:
    with blobs.writer() as writer:
        writer.write(content)
        return writer.commit()


def test_only_blobs_that_no_row_refers_to_are_removed(sessions, tmp_path: Path):
    blobs = Blobs(tmp_path / "blobs")
    kept = {name: put(blobs, name.encode()) for name in ("model", "dataset", "artifact", "table")}
    with sessions.begin() as session:
        model = add_model(session, kept["model"])
        lease = held(session, model_id=model.id)
        dataset = datasets.add(
            session,
            name="mine",
            builtin=None,
            sha256=kept["dataset"],
            size_bytes=7,
            description={},
        )
        progress.table(session, lease, kept["table"])
        artifacts.publish(session, lease, [("report.md", "text/markdown", kept["artifact"], 8)])
    stray = put(blobs, b"of an upload that came to nothing")

    with reading(sessions) as session:
        assert garbage.collect(session, blobs) == []  # its row may still be on the way
        assert garbage.collect(session, blobs, unused_seconds=0) == [stray]
    assert set(blobs.digests()) == set(kept.values())

    with sessions.begin() as session:
        finish(session, lease, JobState.SUCCEEDED)
        jobs.delete(session, lease.job_id)
        models.delete(session, model.id)
        datasets.delete(session, dataset.id)
    with reading(sessions) as session:
        assert set(garbage.collect(session, blobs, unused_seconds=0)) == set(kept.values())
    assert list(blobs.digests()) == []


def test_a_blob_of_two_rows_stays_until_the_last_is_gone(sessions, tmp_path: Path):
    blobs = Blobs(tmp_path / "blobs")
    digest = put(blobs, b"weights")
    with sessions.begin() as session:
        first = add_model(session, digest)
        second = models.add(
            session,
            name="the same weights",
            architecture="another",
            sha256=digest,
            size_bytes=7,
            parameters=2,
        )
        models.delete(session, first.id)
        assert garbage.collect(session, blobs, unused_seconds=0) == []
        models.delete(session, second.id)
        add_dataset(session)  # a built-in one, which has no blob
        assert garbage.collect(session, blobs, unused_seconds=0) == [digest]
