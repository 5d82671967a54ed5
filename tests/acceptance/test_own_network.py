"""A network that we have never seen, through the service and back, by a script without our code."""

import json
import subprocess
import sys

import pytest

from tests.acceptance.processes import RANKSEARCH, ROOT, environment, running

SCRIPT = ROOT / "examples" / "own_network" / "outsider.py"


@pytest.mark.timeout(600)
def test_a_network_of_ones_own_goes_there_and_back(tmp_path):
    env = environment(data_dir=tmp_path / "data", token="known")
    with running([RANKSEARCH, "serve", "--port", "0", "--json"], env) as served:
        url = json.loads(served.stdout.readline())["url"]
        done = subprocess.run(
            [sys.executable, "-I", str(SCRIPT), url, str(tmp_path), "known"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["verdict"] in ("budget_met", "no_gain"), told
    assert told["before"] > 90
    assert told["after"] > told["before"] - 5
    assert told["parameters"][1] <= told["parameters"][0]
    assert told["difference"] < 1e-4
    assert told["loss"][1] < told["loss"][0]
    assert told["tuned"] > 90
