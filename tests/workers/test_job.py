import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workers.jobs import environment, read
from tests.workers.tiny import furnish, order
from workers.exits import Exit
from workers.journal import Journal

ROOT = Path(__file__).parents[2]

# A job process whose work is to wait, so that a signal finds it there.
WAITING = """
import sys, time
from workers import job
def wait(lease, started):
    print("at work", flush=True)
    time.sleep(600)
job._work = wait
sys.argv[1:] = ["job_1", "token", "1"]
sys.exit(job.main())
"""


def run(*arguments: str, env: dict[str, str] | None = None) -> int:
    command = [sys.executable, "-m", "workers.job", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, check=False, capture_output=True).returncode


def test_sigterm_ends_the_process_at_once():
    with subprocess.Popen(
        [sys.executable, "-c", WAITING], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"at work\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == Exit.STOPPED


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_process_whose_supervisor_is_gone_does_not_begin():
    assert run("job_1", "token", "1", "--parent", str(1 << 22)) == Exit.ORPHANED


def test_wrong_arguments_are_told_from_a_crash():
    assert run("job_1") == Exit.USAGE


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_process_without_the_lease_says_so_and_changes_nothing(sessions, tmp_path):
    house = furnish(sessions, tmp_path)
    job_id = house.submit(order())
    journal: Journal = house.claim()
    before = read(sessions, job_id)
    env = environment(house.settings.database_url, tmp_path)
    assert run(job_id, "another token", "1", env=env) == Exit.LEASE_LOST
    after = read(sessions, job_id)
    assert (after.version, after.lease_token) == (before.version, journal.lease.token)
