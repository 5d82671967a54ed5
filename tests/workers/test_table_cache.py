import errno
import os

import pytest

from compress.plan import Choice
from search.table import ChoiceRow, ChoiceTable, LayerRow
from service.store import lease as leases
from service.store.blobs import Blobs
from tests.workers.jobs import read, submit
from workers.journal import Journal
from workers.table_cache import TableCache, table_of_job

KEY = "k" * 64


def table(latency_ms: float = 1.0) -> ChoiceTable:
    def row(choice: Choice | None, loss: float) -> ChoiceRow:
        return ChoiceRow(choice=choice, loss=loss, latency_ms=latency_ms, parameters=9, macs=9)

    choices = (row(None, 0.0), row(Choice("svd", (4,)), 0.5))
    return ChoiceTable(
        layers=(LayerRow(name="conv1", choices=choices),),
        dense_latency_ms=latency_ms,
        dense_parameters=9,
        dense_macs=9,
        kept_dense={"norm1": "no weight to speak of"},
    )


@pytest.fixture
def cache(tmp_path):
    return TableCache(tmp_path / "tables")


@pytest.fixture
def journal(sessions):
    submit(sessions)
    with sessions.begin() as session:
        lease = leases.claim(session, "a test", 30.0)
    return Journal(sessions, lease, patience_seconds=5)


def never() -> ChoiceTable:
    raise AssertionError("analysed again")


def test_a_table_comes_back_as_it_was(cache):
    cache.put(KEY, table())
    assert cache.get(KEY) == table()
    assert cache.get("another") is None


def test_a_file_that_is_no_table_counts_as_none(cache, tmp_path):
    cache.put(KEY, table())
    for text in ("", "{", "[]", '{"layers": []}'):
        (tmp_path / "tables" / f"{KEY}.json").write_text(text)
        assert cache.get(KEY) is None


def test_a_full_disk_leaves_nothing_of_a_table(cache, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        cache.put(KEY, table())
    assert list((tmp_path / "tables").iterdir()) == []


def test_the_next_attempt_has_the_very_table_of_the_one_before(sessions, journal, cache, tmp_path):
    blobs = Blobs(tmp_path / "blobs")
    first = table_of_job(journal, blobs, cache, earlier=None, key=KEY, analyse=table)
    earlier = read(sessions, journal.lease.job_id).table_sha256
    cache.put(KEY, table(2.0))  # another job has measured anew
    second = table_of_job(journal, blobs, cache, earlier=earlier, key=KEY, analyse=never)
    assert second == first == table(1.0)


def test_another_job_takes_the_table_that_fits(sessions, journal, cache, tmp_path):
    blobs = Blobs(tmp_path / "blobs")
    cache.put(KEY, table())
    found = table_of_job(journal, blobs, cache, earlier=None, key=KEY, analyse=never)
    assert found == table()
    assert blobs.path(read(sessions, journal.lease.job_id).table_sha256).exists()


def test_a_table_that_is_lost_is_made_again(journal, cache, tmp_path):
    blobs = Blobs(tmp_path / "blobs")
    found = table_of_job(journal, blobs, cache, earlier="0" * 64, key=KEY, analyse=table)
    assert found == table()
