import hashlib
import json
import os
import runpy
import subprocess
import sys
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from compress.architectures import build, describe
from compress.artifact import write_result, zip_folder
from compress.errors import PlanError
from compress.load import load
from compress.plan import Choice, Plan
from compress.surgery import factorize_

PLAN = Plan({"conv2": Choice("svd", (4,)), "classify": Choice("svd", (3,))})

# A stranger's session: torch is there, but importing anything of ours or of its kin fails.
STRANGER = """
import sys
import torch

sys.modules.update(dict.fromkeys(["compress", "search", "service", "safetensors", "numpy"]))
sys.path.insert(0, sys.argv[1])
from load import load

model = load(sys.argv[1])
torch.save(model(torch.load(sys.argv[2])).detach(), sys.argv[3])
print(sorted(n for n, m in model.named_modules() if type(m).__name__ == "FactorizedLayer"))
"""


@pytest.fixture
def result(tmp_path, tiny, tiny_architecture):
    """A folder with a result without its program, and the network."""
    factorize_(tiny, PLAN)
    folder = tmp_path / "result"
    write(folder, tiny, tiny_architecture)
    return folder, tiny


def write(folder, model, architecture, **changes):
    arguments = {
        "architecture": architecture,
        "input_shape": (3, 8, 8),
        "evidence": {"speedup": 2.5, "device": "one core"},
        "example": torch.randn(1, 3, 8, 8),
        "programs": (),
    }
    return write_result(folder, model, PLAN, **{**arguments, **changes})


@pytest.fixture
def prove(monkeypatch, capsys):
    """Runs `python load.py ...` in this process and returns the lines that it prints."""

    def run(loader, *arguments):
        monkeypatch.setattr(sys, "argv", [str(loader), *map(str, arguments)])
        runpy.run_path(str(loader), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


def test_a_stranger_with_torch_alone_loads_it(result, tmp_path):
    folder, model = result
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    x = torch.randn(2, 3, 8, 8)
    torch.save(x, elsewhere / "x.pt")
    script = elsewhere / "stranger.py"
    script.write_text(STRANGER)
    arguments = [script, folder, elsewhere / "x.pt", elsewhere / "y.pt"]
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", *arguments],
        cwd=elsewhere,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['classify', 'conv2']\n"
    assert torch.equal(torch.load(elsewhere / "y.pt"), model(x))


def test_the_loader_proves_the_result(result, prove):
    folder, model = result
    parameters = sum(parameter.numel() for parameter in model.parameters())
    lines = [
        "3 of 3 files are here, each as it was written",
        "2 layers factorised",
        f"{parameters:,} parameters",
        "(1, 3, 8, 8) -> (1, 5)",
    ]
    assert prove(folder / "load.py") == lines
    assert prove(load.__code__.co_filename, folder) == lines


def test_the_loader_tells_a_file_that_was_changed(result, prove):
    folder, _ = result
    (folder / "README.txt").unlink()
    assert prove(folder / "load.py")[0].startswith("2 of 3 files are here")
    weights = load_file(folder / "model.safetensors")
    weights["conv1.weight"][0] += 1
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(SystemExit, match=r"model\.safetensors is not the file that was written"):
        prove(folder / "load.py")


def test_the_manifest_says_what_was_done(result, tiny_architecture):
    folder, _ = result
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["version"] == 1
    assert manifest["architecture"] == tiny_architecture
    assert Plan.from_json(json.dumps(manifest["plan"])) == PLAN
    assert manifest["input_shape"] == [3, 8, 8]
    assert manifest["evidence"] == {"speedup": 2.5, "device": "one core"}
    assert [row[:2] for row in manifest["layers"]["classify"]] == [
        [name, "Linear"] for name in ("reduce", "expand")
    ]
    assert manifest["files"] == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "manifest.json"
    }


def test_the_program_is_written_with_its_difference(tmp_path, tiny, tiny_architecture):
    factorize_(tiny, PLAN)
    written = write(tmp_path, tiny, tiny_architecture, programs=["model.pt2"])
    assert written[-1] == tmp_path / "manifest.json"
    assert sorted(written) == sorted(tmp_path.iterdir())
    manifest = json.loads(written[-1].read_text())
    assert 0 <= manifest["evidence"]["program_difference"] <= 1e-4
    assert set(manifest["files"]) == {"README.txt", "load.py", "model.pt2", "model.safetensors"}
    x = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        program = torch.export.load(tmp_path / "model.pt2").module()
        torch.testing.assert_close(program(x), load(tmp_path)(x))


def test_equal_results_give_equal_bytes(result, tmp_path, tiny_architecture):
    folder, model = result
    write(tmp_path / "again", model, tiny_architecture)
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
        os.utime(path, (1e9, 1e9))
    zip_folder(folder, tmp_path / "a.zip")
    zip_folder(tmp_path / "again", tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_report_that_stands_there_already_is_listed(result, tiny_architecture):
    folder, model = result
    (folder / "report.md").write_text("# Report\n")
    written = write(folder, model, tiny_architecture)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert folder / "report.md" not in written
    assert manifest["files"]["report.md"] == hashlib.sha256(b"# Report\n").hexdigest()


def test_a_zip_holds_every_file(result, tmp_path):
    folder, _ = result
    zip_folder(folder, tmp_path / "result.zip")
    with zipfile.ZipFile(tmp_path / "result.zip") as archive:
        assert archive.testzip() is None
        assert {entry.external_attr >> 16 for entry in archive.infolist()} == {0o644}
        assert {name: archive.read(name) for name in archive.namelist()} == {
            path.name: path.read_bytes() for path in folder.iterdir()
        }


def test_a_network_of_torchvision_is_built_by_torchvision(tmp_path):
    arguments = {"num_classes": 4}
    model = build("squeezenet1_1", arguments)
    plan = Plan({"features.3.expand3x3": Choice("svd", (8,))})
    factorize_(model, plan)
    write_result(
        tmp_path,
        model,
        plan,
        architecture=describe("squeezenet1_1", arguments),
        input_shape=(3, 64, 64),
        evidence={},
        example=torch.zeros(1, 3, 64, 64),
        programs=(),
    )
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(load(tmp_path)(x), model(x))


@pytest.mark.parametrize("plan", [Plan(), Plan({**PLAN.choices, "conv3": Choice("svd", (2,))})])
def test_a_plan_that_is_not_the_networks_is_refused(tmp_path, tiny, tiny_architecture, plan):
    factorize_(tiny, PLAN)
    with pytest.raises(PlanError, match=r"factorised in the network are \['classify', 'conv2'\]"):
        write_result(
            tmp_path / "result",
            tiny,
            plan,
            architecture=tiny_architecture,
            input_shape=(3, 8, 8),
            evidence={},
            example=torch.zeros(1, 3, 8, 8),
        )
    assert not (tmp_path / "result").exists()


def test_evidence_that_is_no_json_is_refused(result, tiny_architecture):
    folder, model = result
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(folder, model, tiny_architecture, evidence={"loss": float("nan")})
