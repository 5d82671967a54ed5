"""The real supervisor and the real job process, as they run in production."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from search.config import GeneticConfig
from service.store import artifacts, candidates
from service.store.session import reading
from service.store.tables import JobState
from tests.workers.jobs import PATIENCE_SECONDS, environment, eventually, read
from tests.workers.tiny import House, furnish, order

JOB_SECONDS = 240.0  # a deadline for a job of half a minute


@pytest.fixture
def house(sessions, tmp_path: Path) -> House:
    (tmp_path / "data").mkdir()
    return furnish(sessions, tmp_path / "data")


@pytest.fixture
def worker(house: House, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m workers`, its log in the file `log`."""
    env = environment(house.settings.database_url, house.settings.data_dir, poll_seconds=0.1)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "workers"], env=env, stderr=log)
    yield process
    process.kill()
    process.wait()


def said(folder: Path, event: str) -> list[dict[str, Any]]:
    lines = (folder / "log").read_text().splitlines()
    entries = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    return [entry for entry in entries if entry["event"] == event]


def keys(house: House, job_id: str) -> list[tuple[str, int]]:
    with reading(house.sessions) as session:
        return [(row.key, row.attempt) for row in candidates.all_of_job(session, job_id)]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_job_whose_process_is_killed_with_9_in_its_search_is_finished_by_the_next(
    house, worker, tmp_path
):
    search = GeneticConfig(population=4, generations=1)
    job_id = house.submit(order("conv2", "conv3", search=search))
    eventually(lambda: keys(house, job_id) != [], "a candidate is stored", JOB_SECONDS)
    os.kill(said(tmp_path, "job started")[0]["pid"], signal.SIGKILL)
    eventually(lambda: read(house.sessions, job_id).state.is_terminal, "the end", JOB_SECONDS)

    job = read(house.sessions, job_id)
    assert (job.state, job.attempt, job.reason) == (JobState.SUCCEEDED, 2, None)
    stored = keys(house, job_id)
    first = {key for key, attempt in stored if attempt == 1}
    evaluated = [
        entry["key"] for entry in said(tmp_path, "candidate evaluated") if entry["attempt"] == 2
    ]
    assert first
    assert evaluated
    assert first.isdisjoint(evaluated)
    assert sorted(first | set(evaluated)) == sorted(key for key, _ in stored)

    with reading(house.sessions) as session:
        [archive] = [row for row in artifacts.of_job(session, job_id) if row.name == "result.zip"]
    with zipfile.ZipFile(house.blobs.path(archive.sha256)) as result:
        result.extractall(tmp_path / "result")
    outsider = subprocess.run(
        [sys.executable, "-P", "load.py"],
        cwd=tmp_path / "result",
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "(1, 1, 32, 32) -> (1, 10)" in outsider.stdout

    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE_SECONDS) == 0
    assert list((house.settings.data_dir / "work").iterdir()) == []
