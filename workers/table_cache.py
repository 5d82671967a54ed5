"""The choice table of a job: that of its earlier attempt, one that fits, or a new one."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from search.joint import Table, read_table
from service.store import progress
from service.store.blobs import Blobs
from workers.journal import Journal


class TableCache:
    """A folder of tables by the digest of all that they depend on; a lost one is made again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> Table | None:
        """The table under `key`, if there is one that can be read."""
        return _read(self._path(key))

    def put(self, key: str, table: Table) -> None:
        """Keep `table`; nobody ever reads a half-written one.

        Raises:
            OSError: there is no space; nothing is left of the file.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self._folder)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(table.to_json())
            os.replace(name, self._path(key))
        except OSError:
            Path(name).unlink()
            raise

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def table_of_job(
    journal: Journal,
    blobs: Blobs,
    cache: TableCache,
    *,
    earlier: str | None,
    key: str,
    analyse: Callable[[], Table],
) -> Table:
    """Find or make the table of a job, and keep it for the job's next attempt and for other jobs.

    Args:
        journal: of the job.
        blobs: where each attempt finds the very table of the one before, so that its points mean
            the same.
        cache: of all jobs.
        earlier: digest of the table of an earlier attempt.
        key: of `search.analysis.table_key`.
        analyse: makes the table, in minutes.
    """
    table = None if earlier is None else _read(blobs.path(earlier))
    if table is not None:
        return table
    table = cache.get(key)
    if table is None:
        table = analyse()
        cache.put(key, table)
    with blobs.writer() as writer:
        writer.write(table.to_json().encode())
        journal.write(progress.table, writer.commit())
    return table


def _read(path: Path) -> Table | None:
    try:
        return read_table(path.read_text("utf-8"))
    except (OSError, ValueError, LookupError, TypeError):  # absent, or of another version
        return None
