"""Results are made by hand here: nothing of what writes them is used."""

import hashlib
import json
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import load_file, save_file
from torch import nn

from compress import load
from search import verification
from search.measurement import race
from search.runtimes import registry
from search.runtimes.eager import Eager
from search.verification import verify

SIZE = (1, 6, 6)
DENSE = [
    ["conv", "Conv2d", {"in_channels": 1, "out_channels": 8, "kernel_size": 3}],
    ["relu", "ReLU", {}],
    ["flatten", "Flatten", {}],
    ["classify", "Linear", {"in_features": 128, "out_features": 3}],
]
STAGES = [
    ["vertical", "Conv2d", {"in_channels": 1, "out_channels": 2, "kernel_size": [3, 1]}],
    ["horizontal", "Conv2d", {"in_channels": 2, "out_channels": 8, "kernel_size": [1, 3]}],
]
OBJECTIVE = {"batch": 4, "threads": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole result: a network of which one layer was factorised."""
    folder = tmp_path_factory.mktemp("result")
    torch.manual_seed(0)
    network = nn.Sequential()
    network.conv = nn.Sequential()
    network.conv.vertical = nn.Conv2d(1, 2, (3, 1))
    network.conv.horizontal = nn.Conv2d(2, 8, (1, 3))
    network.relu, network.flatten = nn.ReLU(), nn.Flatten()
    network.classify = nn.Linear(128, 3)
    save_file(network.state_dict(), folder / "model.safetensors")
    export(network, folder / "model.pt2")
    shutil.copyfile(load.__file__, folder / "load.py")
    write_manifest(folder)
    return folder


@pytest.fixture
def result(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "result")


@pytest.fixture(autouse=True)
def _brief_timing(monkeypatch):
    monkeypatch.setattr(verification, "TIMING_SECONDS", 0.0)


def export(network: nn.Module, path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        network.eval(), (torch.zeros(2, *SIZE),), dynamic_shapes=({0: batch},)
    )
    torch.export.save(program, path)


def write_manifest(folder: Path, **changes: object) -> None:
    """The manifest of the files that are in the folder."""
    files = [path for path in folder.iterdir() if path.name != "manifest.json"]
    document = {
        "version": 1,
        "architecture": {"registry": "examples", "name": "tiny", "rows": DENSE},
        "layers": {"conv": STAGES},
        "input_shape": SIZE,
        "evidence": {"objective": OBJECTIVE},
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
    }
    (folder / "manifest.json").write_text(json.dumps(document | changes))


def checks(folder: Path) -> dict[str, tuple[bool, str]]:
    return {check.name: (check.holds, check.detail) for check in verify(folder).checks}


def test_a_result_that_is_whole_holds(result):
    found = verify(result)
    assert found.holds
    assert [check.name for check in found.checks] == ["files", "reload", "parity"]
    assert found.checks[0].detail == "3 of 3 are as they were written"
    parameters = 2 * 3 + 2 + 8 * 2 * 3 + 8 + 128 * 3 + 3
    assert found.checks[1].detail == f"1 layer factorised, {parameters} parameters"


def test_its_speed_is_that_of_the_objective(result):
    speed = verify(result).speed
    assert (speed.batch, speed.threads, speed.device) == (4, 1, "cpu")
    assert speed.speedup == 1 / speed.ratio.median
    assert speed.dense.n > 0


def test_the_result_of_a_cancelled_job_is_timed_on_single_inputs(result):
    write_manifest(result, evidence={"state": "unconfirmed"})
    assert verify(result).speed.batch == 1


@pytest.mark.parametrize("name", ["model.safetensors", "load.py", "model.pt2"])
def test_a_changed_byte_is_seen_and_nothing_is_run(result, name):
    content = bytearray((result / name).read_bytes())
    content[-1] ^= 1
    (result / name).write_bytes(content)
    assert checks(result) == {"files": (False, f"{name} is not the file that was written")}
    assert verify(result).speed is None


def test_a_missing_file_is_named(result):
    (result / "model.pt2").unlink()
    assert checks(result) == {"files": (False, "model.pt2 is missing")}


def test_a_loader_that_was_swapped_is_not_run(result):
    (result / "load.py").write_text("raise SystemExit('I was run')")
    assert not verify(result).holds


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"files": 1}', '{"files": {"../load.py": ""}, "input_shape": [1]}']
)
def test_a_manifest_that_is_none_is_told(result, text):
    (result / "manifest.json").write_text(text)
    ((name, (holds, detail)),) = checks(result).items()
    assert (name, holds) == ("files", False)
    assert "manifest.json cannot be read" in detail


def test_a_name_that_leads_out_of_the_folder_is_refused(result):
    manifest = json.loads((result / "manifest.json").read_text())
    write_manifest(result, files=manifest["files"] | {"../other": "0"})
    assert "plain names" in checks(result)["files"][1]


def test_weights_that_do_not_fit_are_told(result):
    save_file({"conv.weight": torch.zeros(1)}, result / "model.safetensors")
    write_manifest(result)
    found = checks(result)
    assert found["files"][0]
    assert not found["reload"][0]
    assert "conv.vertical.weight" in found["reload"][1]


def test_a_program_that_computes_something_else_is_told(result, made):
    network = load.load(made)
    with torch.no_grad():
        network.classify.bias += 0.01
    export(network, result / "model.pt2")
    write_manifest(result)
    found = verify(result)
    assert [(check.name, check.holds) for check in found.checks][-1] == ("parity", False)
    assert found.speed is None


def test_a_program_that_does_not_load_is_told(result):
    (result / "model.pt2").write_bytes(b"nothing")
    write_manifest(result)
    assert "model.pt2 does not run" in checks(result)["parity"][1]


def test_without_a_program_there_is_no_parity(result):
    (result / "model.pt2").unlink()
    write_manifest(result)
    assert list(checks(result)) == ["files", "reload"]
    assert verify(result).holds


@pytest.fixture(scope="module")
def graph(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `made` computes, for onnxruntime."""
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    network = load.load(made)
    batch = torch.export.Dim("batch", min=1, max=64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (torch.zeros(2, *SIZE),),
            dynamic_shapes=({0: batch},),
            input_names=["input"],
            verbose=False,
        )
    program.save(path)
    return path


def test_the_graph_is_compared_as_the_program_is(result, graph):
    shutil.copy(graph, result / "model.onnx")
    write_manifest(result)
    found = checks(result)
    assert list(found) == ["files", "reload", "parity", "onnx"]
    assert found["onnx"][0]
    assert found["onnx"][1].startswith("model.onnx differs by ")


def test_a_graph_that_computes_something_else_is_told(result, graph):
    document = onnx.load(graph)
    (bias,) = (w for w in document.graph.initializer if w.name == "classify.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 0.01, bias.name))
    onnx.save(document, result / "model.onnx")
    write_manifest(result)
    found = verify(result)
    assert [(check.name, check.holds) for check in found.checks][-1] == ("onnx", False)
    assert found.speed is None
    (result / "model.onnx").write_bytes(b"nothing")
    write_manifest(result)
    assert "model.onnx does not run" in checks(result)["onnx"][1]


def test_where_onnxruntime_is_missing_the_graph_is_not_run_and_that_is_said(
    result, graph, monkeypatch
):
    monkeypatch.setattr(registry, "find_spec", lambda _: None)
    shutil.copy(graph, result / "model.onnx")
    write_manifest(result, evidence={"objective": OBJECTIVE | {"runtime": "onnxruntime"}})
    found = verify(result)
    assert found.holds
    assert "model.onnx was not run: onnx, onnxscript, onnxruntime not" in found.checks[-1].detail
    assert found.speed.runtime == "eager"


def test_the_runtime_is_that_of_the_job(result, monkeypatch):
    seen = []

    def race(networks, example, *, runtime, seconds, keep_freed):
        seen.append((runtime.name, runtime.threads))
        return measure(networks, example, runtime=Eager(), seconds=seconds, keep_freed=keep_freed)

    measure = verification.race
    monkeypatch.setattr(verification, "race", race)
    write_manifest(
        result, evidence={"objective": OBJECTIVE | {"runtime": "onnxruntime", "threads": 2}}
    )
    assert verify(result).speed.runtime == "onnxruntime"
    assert set(seen) == {("onnxruntime", 2)}


Run = Callable[..., tuple[object, str, str]]


@pytest.fixture
def run(monkeypatch, capsys) -> Run:
    """The command; its exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr("sys.argv", ["verify", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            verification.main()
        return ended.value.code, *capsys.readouterr()

    return run


def test_the_command_reads_a_zip_and_answers_in_json(run, result, tmp_path):
    archive = tmp_path / "result.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for path in result.iterdir():
            zipped.write(path, path.name)
    code, out, _ = run(archive, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["holds"]
    assert document["speed"]["speedup"] > 0
    assert [check["name"] for check in document["checks"]] == ["files", "reload", "parity"]


def test_the_command_has_a_line_for_each_check_and_one_for_the_speed(run, result):
    lines = run(result)[1].splitlines()
    assert [line.split()[0] for line in lines] == ["files", "reload", "parity", "timing"]
    assert "batch 4, 1 thread" in lines[-1]


def test_the_command_ends_with_1_if_something_does_not_hold(run, result):
    (result / "load.py").unlink()
    assert run(result)[:2] == (1, "files    WRONG  load.py is missing\n")


def test_the_command_ends_with_2_where_there_is_no_result(run, tmp_path):
    assert run(tmp_path / "nowhere")[0] == 2
    (tmp_path / "text").write_text("no archive")
    code, _, err = run(tmp_path / "text")
    assert code == 2
    assert "a folder or a zip was wanted" in err


@pytest.mark.parametrize("fold_norms", [True, False])
def test_dense_is_timed_as_the_result_was(result, monkeypatch, fold_norms):
    rows = [*DENSE[:1], ["norm", "BatchNorm2d", {"num_features": 8}], *DENSE[1:]]
    weights = load_file(result / "model.safetensors")
    if not fold_norms:
        weights |= {f"norm.{key}": value for key, value in nn.BatchNorm2d(8).state_dict().items()}
    save_file(weights, result / "model.safetensors")
    (result / "model.pt2").unlink()
    write_manifest(
        result,
        architecture={"registry": "examples", "name": "tiny", "rows": rows},
        layers={"conv": STAGES} | ({"norm": []} if fold_norms else {}),
        evidence={"objective": OBJECTIVE | {"fold_norms": fold_norms}},
    )
    raced = []

    def watched(networks, *arguments, **more):
        raced.append(
            [sum(type(m) is nn.BatchNorm2d for m in n.modules()) for n in networks.values()]
        )
        return race(networks, *arguments, **more)

    monkeypatch.setattr(verification, "race", watched)
    found = verify(result)
    assert found.checks[1].detail.startswith("1 layer factorised, ")
    assert raced == [[1 - fold_norms] * 2] * 2
