"""A network with an LSTM, through the service and back, judged with torch alone."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from search.config import Budget, EstimationConfig, Objective
from service.client import Client
from service.schemas import JobOrder
from tests.acceptance.processes import RANKSEARCH, environment, running

STRANGER = """
import sys
import torch
sys.modules.update(dict.fromkeys(["compress", "search", "service", "safetensors"]))
sys.path.insert(0, sys.argv[1])
from load import load
model, x = load(sys.argv[1]), torch.load(sys.argv[2])
program = torch.export.load(sys.argv[1] + "/model.pt2").module()
print(float((model(x) - program(x)).abs().max()), *model.state_dict())
"""


class Tagger(nn.Module):
    """(N, T, 6) to (N, 4)."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(6, 24)
        self.lstm = nn.LSTM(24, 32, batch_first=True)
        self.classify = nn.Linear(32, 4)

    def forward(self, x):
        return self.classify(self.lstm(self.embed(x).relu())[0][:, -1])


@pytest.mark.timeout(400)
def test_a_network_with_an_lstm_goes_there_and_back(tmp_path):
    torch.manual_seed(0)
    batch = torch.export.Dim("batch", min=1, max=4096)
    with warnings.catch_warnings(action="ignore"):
        program = torch.export.export(
            Tagger().eval(), (torch.zeros(2, 9, 6),), dynamic_shapes=({0: batch},)
        )
        torch.export.save(program, tmp_path / "tagger.pt2")
    np.savez(tmp_path / "data.npz", steps=torch.randn(300, 9, 6).numpy())
    torch.save(torch.randn(3, 14, 6), tmp_path / "x.pt")  # of other numbers of steps
    env = environment(data_dir=tmp_path / "data", token="known")
    with running([RANKSEARCH, "serve", "--port", "0", "--json"], env) as served:
        url = json.loads(served.stdout.readline())["url"]
        with Client(url, "known") as client:
            order = JobOrder(
                model=client.upload_model(tmp_path / "tagger.pt2").id,
                dataset=client.upload_dataset(tmp_path / "data.npz", inputs=("steps",)).id,
                budget=Budget(max_loss=90, unit="points", metric="agreement", confidence=None),
                objective=Objective(minimise="parameters", device="cpu"),
                search=EstimationConfig(max_evaluations=2),
                methods=("svd", "kronecker"),
                exclude=("embed", "classify"),
            )
            *_, job = client.follow(client.submit(order).id)
            assert job.verdict == "budget_met", job.reason
            for artifact in client.artifacts(job.id):
                client.download(artifact, tmp_path / "result")
    manifest = json.loads((tmp_path / "result" / "manifest.json").read_text())
    assert manifest["recurrent"].keys() == {"lstm"}
    assert manifest["plan"]["layers"].keys() == {"lstm.weight_ih_l0", "lstm.weight_hh_l0"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, str(tmp_path / "result"), str(tmp_path / "x.pt")],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    apart, *keys = done.stdout.split()
    assert float(apart) < 1e-5
    assert any(key.startswith("lstm.weight_hh_l0.") for key in keys)
