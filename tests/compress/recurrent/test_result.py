"""A result with factorised recurrent weights: its files load with torch alone."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

from compress.artifact import write_result
from compress.errors import PlanError
from compress.load import load
from compress.onnx.session import Session
from compress.plan import Plan
from compress.surgery import factorize_
from tests.compress.recurrent import networks
from tests.compress.recurrent.networks import sequences
from tests.compress.recurrent.plans import PLAN

X = torch.randn(3, 11, 8, generator=torch.Generator().manual_seed(1))

# A stranger's session: torch is there, but importing anything of ours fails. The network is the
# dense one, from a file of its own.
STRANGER = """
import sys
import torch

sys.modules.update(dict.fromkeys(["compress", "search", "service", "safetensors", "numpy"]))
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from load import load
from networks import sequences

model = load(sys.argv[1], factory=sequences)
answers = model(torch.load(sys.argv[2] + "/x.pt")).detach()
torch.save([answers, model.state_dict()], sys.argv[2] + "/y.pt")
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """The folder and its network."""
    folder, model = tmp_path_factory.mktemp("result"), sequences()
    factorize_(model, PLAN)
    written(folder, model, PLAN, programs=("model.pt2", "model.onnx"))
    return folder, model


def written(folder, model, plan, programs=()):
    return write_result(
        folder,
        model,
        plan,
        architecture={"registry": "factory", "name": "Sequences"},
        input_shape=(11, 8),
        evidence={},
        example=torch.randn(2, 5, 8),
        programs=programs,
    )


def test_the_folder_brings_what_builds_the_layers(result):
    folder, model = result
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {"recurrent.py", "projection.py"} <= manifest["files"].keys()
    assert manifest["recurrent"].keys() == {"lstm", "gru"}
    assert Plan.from_json(json.dumps(manifest["plan"])) == PLAN
    assert model.state_dict().keys() >= {"lstm.weight_ih_l0.in_1", "lstm.weight_ih_l0_reverse"}


def test_it_loads_bit_by_bit(result):
    folder, model = result
    other = load(folder, factory=sequences)
    assert other.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())
    assert torch.equal(other(X), model(X))


def test_a_stranger_with_torch_alone_loads_it(result, tmp_path):
    folder, model = result
    shutil.copy(networks.__file__, tmp_path)
    torch.save(X, tmp_path / "x.pt")
    subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", STRANGER, str(folder), str(tmp_path)],
        check=True,
        timeout=120,
    )
    answers, state = torch.load(tmp_path / "y.pt")
    assert torch.equal(answers, model(X))
    assert state.keys() == model.state_dict().keys()


def test_the_programs_take_other_batches_and_other_numbers_of_steps(result):
    folder, model = result
    program = torch.export.load(folder / "model.pt2").module()
    torch.testing.assert_close(program(X), model(X), rtol=0, atol=1e-5)
    torch.testing.assert_close(Session(folder / "model.onnx")(X), model(X), rtol=0, atol=1e-5)


def test_a_plan_of_other_weights_is_refused(tmp_path):
    model = sequences()
    factorize_(model, PLAN)
    fewer = Plan({name: choice for name, choice in PLAN if name != "gru.weight_hh_l0"})
    with pytest.raises(PlanError, match=r"gru\.weight_hh_l0"):
        written(tmp_path, model, fewer)


def test_a_dense_network_has_no_files_of_recurrent_layers(tmp_path):
    written(tmp_path, sequences(), Plan())
    assert not (tmp_path / "recurrent.py").exists()
    assert "recurrent" not in json.loads((tmp_path / "manifest.json").read_text())
