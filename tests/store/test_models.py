"""Models and datasets: the same rules, one after the other."""

from itertools import count

import pytest

from service.store import datasets, jobs, models
from service.store.errors import CursorError, InUseError, NotFoundError
from service.store.session import reading
from tests.store.rows import add_dataset, add_model, submit
from tests.store.together import overtaken, together

numbers = count()


def add_any(kind, session, number: int | None = None):
    number = next(numbers) if number is None else number
    if kind is models:
        return add_model(session, f"{number:064x}")
    return datasets.add(
        session,
        name="mine",
        builtin=None,
        sha256=f"{number:064x}",
        size_bytes=3,
        description={"count": 3},
    )


both = pytest.mark.parametrize("kind", [models, datasets], ids=["models", "datasets"])


@both
def test_what_was_added_is_read_back(kind, sessions):
    with sessions.begin() as session:
        added = add_any(kind, session)
    with reading(sessions) as session:
        row = kind.get(session, added.id)
        assert (row.sha256, row.size_bytes) == (added.sha256, added.size_bytes)
        assert row.created_at.utcoffset().total_seconds() == 0


@both
def test_the_same_upload_is_one_row(kind, sessions):
    with sessions.begin() as session:
        first = add_any(kind, session, 10**6)
    with sessions.begin() as session:
        assert add_any(kind, session, 10**6).id == first.id
        assert add_any(kind, session, 10**6 + 1).id != first.id
        assert len(kind.listed(session)) == 2


@both
def test_the_same_upload_many_times_at_once_is_one_row(kind, sessions):
    def upload() -> str:
        with sessions.begin() as session:
            return add_any(kind, session, 10**7).id

    assert len(set(together(*[upload] * 4))) == 1


def test_the_same_weights_of_another_architecture_are_another_model(sessions):
    with sessions.begin() as session:
        row = add_model(session)
        facts = {"name": "a", "sha256": row.sha256, "size_bytes": 1, "parameters": 1}
        assert models.add(session, architecture="vgg11", **facts).id != row.id


def test_the_same_file_with_another_description_is_another_dataset(sessions):
    facts = {"name": "a", "builtin": None, "sha256": "0" * 64, "size_bytes": 1}
    with sessions.begin() as session:
        plain = datasets.add(session, description={"mean": None}, **facts)
        centred = datasets.add(session, description={"mean": [0.5]}, **facts)
        renamed = datasets.add(session, description={"mean": None}, **{**facts, "name": "b"})
        assert plain.id != centred.id
        assert plain.id == renamed.id


@both
def test_nothing_is_found_under_another_id(kind, sessions):
    with sessions.begin() as session:
        with pytest.raises(NotFoundError, match="has the id x_none"):
            kind.get(session, "x_none")
        with pytest.raises(NotFoundError, match="has the id x_none"):
            kind.delete(session, "x_none")


@both
def test_pages_go_from_the_newest_to_the_oldest(kind, sessions):
    with sessions.begin() as session:
        added = [add_any(kind, session).id for _ in range(5)]
    with reading(sessions) as session:
        first = [row.id for row in kind.listed(session, limit=2)]
        second = [row.id for row in kind.listed(session, after=first[-1], limit=2)]
        third = [row.id for row in kind.listed(session, after=second[-1], limit=2)]
        assert first + second + third == added[::-1]
        with pytest.raises(CursorError, match="start from the first page"):
            kind.listed(session, after="x_none")


@both
def test_what_a_job_refers_to_is_not_deleted_before_the_job(kind, sessions):
    with sessions.begin() as session:
        model_id, dataset_id = add_model(session).id, add_dataset(session).id
        job = submit(session, model_id=model_id, dataset_id=dataset_id)
        own = model_id if kind is models else dataset_id
        with pytest.raises(InUseError, match=f"used by job {job.id}"):
            kind.delete(session, own)
        jobs.cancel(session, job.id)
        jobs.delete(session, job.id)
        kind.delete(session, own)
        with pytest.raises(NotFoundError):
            kind.get(session, own)


@both
def test_what_is_deleted_while_a_job_is_submitted_for_it_is_not_found(kind, sessions):
    with sessions.begin() as session:
        ids = {"model_id": add_model(session).id, "dataset_id": add_dataset(session).id}
    own = ids["model_id" if kind is models else "dataset_id"]
    with pytest.raises(NotFoundError, match=own):
        overtaken(
            sessions,
            lambda session: kind.delete(session, own),
            lambda session: submit(session, **ids),
        )


@both
def test_what_a_job_is_submitted_for_while_it_is_deleted_stays(kind, sessions):
    with sessions.begin() as session:
        ids = {"model_id": add_model(session).id, "dataset_id": add_dataset(session).id}
    own = ids["model_id" if kind is models else "dataset_id"]
    with pytest.raises(InUseError, match=own):
        overtaken(
            sessions,
            lambda session: submit(session, **ids),
            lambda session: kind.delete(session, own),
        )


@both
def test_what_is_uploaded_again_while_it_is_deleted_is_there_afterwards(kind, sessions):
    with sessions.begin() as session:
        old = add_any(kind, session, 10**8).id
    _, new = overtaken(
        sessions,
        lambda session: kind.delete(session, old),
        lambda session: add_any(kind, session, 10**8).id,
    )
    with reading(sessions) as session:
        assert [row.id for row in kind.listed(session)] == [new]
