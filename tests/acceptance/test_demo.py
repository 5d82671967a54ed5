"""The demo is a newcomer's first sight: stopped half-way, it leaves nothing running or behind."""

import signal
import sys

import pytest

from tests.acceptance.processes import ROOT, descendants, environment, running, until
from tests.workers.jobs import is_alive


def heed_ctrl_c():
    """A shell has what it starts in the background ignore Ctrl-C, and so these tests perhaps."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped_leaves_nothing(tmp_path, number):
    temporary, results = tmp_path / "temporary", tmp_path / "results"
    temporary.mkdir()
    command = [sys.executable, "-m", "examples.demo", "digits", "--results", str(results)]
    where = {"cwd": ROOT, "preexec_fn": heed_ctrl_c}
    with running(command, environment() | {"TMPDIR": str(temporary)}, **where) as demo:
        assert any("analysing" in line for line in demo.stderr)  # a job process is at work
        started = descendants(demo.pid)
        assert len(started) >= 3  # service, worker, job
        demo.send_signal(number)
        demo.communicate(timeout=60)
        assert demo.returncode == (1 if number == signal.SIGINT else 128 + number)
        until(lambda: not any(map(is_alive, started)))
    assert list(temporary.iterdir()) == []
    assert not results.exists()
