import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workers.jobs import eventually, is_alive

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
ROOT = Path(__file__).parents[2]

CHILD = """
import os, sys, time
from workers.parent import bind_to
print(os.getpid(), bind_to({parent}), flush=True)
time.sleep(600)
"""
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True)
time.sleep(600)
"""


def test_the_child_of_a_killed_parent_dies_even_in_a_session_of_its_own():
    child = CHILD.format(parent="os.getppid()")
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, child], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid, is_bound = parent.stdout.readline().split()
        assert is_bound == "True"
        assert is_alive(int(pid))
        parent.kill()
        eventually(lambda: not is_alive(int(pid)), "the child dies")


def test_a_child_whose_parent_was_gone_before_is_told_so():
    child = CHILD.format(parent="1 << 22").replace("time.sleep(600)", "")  # nobody's id
    answer = subprocess.run(
        [sys.executable, "-c", child], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split()[1] == "False"
    assert os.getppid() != 1 << 22
