"""A network that loses channels, through the service and back, loaded with torch alone."""

import json
import subprocess
import sys

import pytest

from search.config import Budget, EstimationConfig, Objective
from service.client import Client
from service.schemas import JobOrder
from tests.acceptance.processes import RANKSEARCH, ROOT, environment, running


@pytest.mark.timeout(400)
def test_a_network_goes_there_and_comes_back_narrower(tmp_path):
    env = environment(data_dir=tmp_path / "data", token="known")
    weights = ROOT / "examples" / "digits" / "model.safetensors"
    with running([RANKSEARCH, "serve", "--port", "0", "--json"], env) as served:
        url = json.loads(served.stdout.readline())["url"]
        with Client(url, "known") as client:
            order = JobOrder(
                model=client.upload_model(weights, architecture="digits_cnn").id,
                dataset=client.builtin_dataset("digits").id,
                budget=Budget(max_loss=30, unit="points", confidence=None),
                objective=Objective(minimise="parameters", device="cpu"),
                search=EstimationConfig(max_evaluations=3),
                methods=("svd",),
                exclude=("conv1", "conv2", "conv3", "conv4"),
                widths=True,
            )
            *_, job = client.follow(client.submit(order).id)
            assert job.verdict == "budget_met", job.reason
            for artifact in client.artifacts(job.id):
                client.download(artifact, tmp_path / "result")
    manifest = json.loads((tmp_path / "result" / "manifest.json").read_text())
    widths = manifest["plan"]["widths"]
    groups = {each["name"]: each for each in manifest["evidence"]["widths"]["groups"]}
    assert widths
    assert all(groups[name]["kept"] == width for name, width in widths.items())
    assert "## Widths" in (tmp_path / "result" / "report.md").read_text()
    subprocess.run(
        [sys.executable, "-I", "load.py"], cwd=tmp_path / "result", check=True, timeout=120
    )
