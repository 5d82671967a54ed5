"""The benchmark of forms: its parts that need no other process."""

import json
import zipfile

import pytest
import torch
from torch import nn

from benchmarks import format_networks, format_stages, format_stranger, formats, tables
from compress.artifact import PROGRAMS
from compress.catalog import ARCHITECTURES
from compress.errors import ExportError, PlanError
from compress.export import difference_of
from compress.load import read_safetensors
from compress.surgery import factorize_, is_factorized

GOOD = {
    **formats.EMPTY,
    "architecture": "resnet18",
    "read_equal": True,
    "layers": 9,
    "layers_wanted": 10,
    "weights_error": 0.0,
    "program_error": 1e-6,
    "graph_error": 1e-5,
    "leaks": 0,
}


def target(rows, name):
    (found,) = [t for t in formats.targets(rows) if t.name == name]
    return found


def test_every_network_is_known_and_named_once():
    names = format_networks.ALL
    assert len(set(names)) == len(names) >= formats.WANTED_NETWORKS
    assert set(names) - set(format_networks.OWN) <= ARCHITECTURES
    assert set(formats.OLDER) | set(format_networks.SIDES) <= set(names)


def test_a_row_has_every_field_of_the_table():
    assert set(tables.FIELDS["formats"]) <= formats.EMPTY.keys()


def test_a_network_that_failed_counts_against_every_share():
    rows = [GOOD, {**formats.EMPTY, "architecture": "other", "failure": "read_program: no"}]
    assert target(rows, "networks").value == 2
    for file in ("model.safetensors", "model.pt2", "model.onnx"):
        assert target(rows, f"share of {file} within 1e-5").value == 0.5
    assert target(rows, "share that computes the same bits once read").value == 0.5
    assert target(rows, "share of layers under their names").value == 0.9


def test_an_error_above_the_tolerance_is_not_within_it():
    rows = [GOOD | {"graph_error": 1.1e-5, "program_error": float("nan")}]
    assert target(rows, "share of model.onnx within 1e-5").value == 0
    assert target(rows, "share of model.pt2 within 1e-5").value == 0


def test_what_no_older_torch_was_asked_meets_no_target():
    assert target([GOOD], "share of model.pt2 that torch 2.11 loads").value is None
    rows = [GOOD | {"older_loads": True}, GOOD | {"older_loads": False}, GOOD]
    assert target(rows, "share of model.pt2 that torch 2.11 loads").value == 0.5


def test_an_outcome_names_every_form_that_failed_and_why():
    forms = {
        "model.safetensors": {"error": 1e-7, "seconds": 0.5, "failure": None},
        "model.pt2": {"error": None, "seconds": None, "failure": "RuntimeError: no"},
    }
    row = formats.outcome({"forms": forms}, {"model.pt2": 7}, "model.onnx: aten.roll")
    assert (row["weights_error"], row["weights_seconds"]) == (1e-7, 0.5)
    assert (row["program_error"], row["program_bytes"], row["graph_error"]) == (None, 7, None)
    assert row["failure"] == "model.onnx: aten.roll; model.pt2: RuntimeError: no"
    fine = formats.outcome({"forms": {}}, {}, None)
    assert fine["failure"] is None
    crashed = formats.outcome({"forms": {}, "failure": "a stranger: exit code 1"}, {}, None)
    assert crashed["failure"] == "a stranger: exit code 1"


def test_files_that_name_a_folder_leak_though_an_archive_deflates_it(tmp_path):
    (tmp_path / "clean.json").write_text("nothing")
    (tmp_path / "open.json").write_text("from /home/somebody/network.py")
    with zipfile.ZipFile(tmp_path / "packed.pt2", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("trace", "/home/somebody/" * 99)
    (tmp_path / "folder").mkdir()
    found = formats.leaks(tmp_path, [b"/home/somebody/"])
    assert [path.name for path in found] == ["open.json", "packed.pt2"]


def test_half_the_ranks_of_the_first_a_middle_and_the_last_narrow_layer():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 6, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 700), nn.Linear(700, 600), nn.Linear(600, 5),
    ).eval()  # fmt: skip
    plan = format_stages.small_plan(model, torch.randn(2, 8, 8, 8))
    assert dict(plan).keys() == {"0", "3", "8"}
    assert str(dict(plan)["0"]) == "tucker2(4, 4)"
    assert str(dict(plan)["3"]) == "svd(3)"
    assert str(dict(plan)["8"]) == "svd(2)"
    factorize_(model, plan)


def test_where_all_layers_are_wide_the_narrowest_is_factorised():
    model = nn.Sequential(nn.Linear(600, 700), nn.Linear(700, 500)).eval()
    plan = format_stages.small_plan(model, torch.randn(2, 600))
    assert dict(plan).keys() == {"1"}


def test_one_bit_is_a_difference():
    x, y = torch.randn(1, 4), torch.randn(3, 4)
    kept = {"input1": x, "output1": 2 * x, "input3": y, "output3": 2 * y}
    same = format_stages.compared(lambda z: 2 * z, kept)
    assert same == {"read_equal": True, "read_error": 0.0}
    other = format_stages.compared(lambda z: 2 * z * (1 + 2**-22 * (len(z) == 3)), kept)
    assert not other["read_equal"]
    assert 0 < other["read_error"] < 1e-6


def test_an_error_is_told_in_one_line_with_its_notes():
    error = PlanError("the plan names\nmore")
    error.add_note("in layer 'a'")
    assert format_stages.told(error) == "PlanError: the plan names (in layer 'a')"


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    tried = []

    def row_of(name, folder, older):
        tried.append(name)
        return GOOD | {"architecture": name}

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["formats", *arguments, "--results", str(tmp_path)])
        formats.main()
        return json.loads((tmp_path / "formats.json").read_text())

    monkeypatch.setattr(formats, "row_of", row_of)
    monkeypatch.setattr("benchmarks.record.hardware", dict)
    first = run("resnet18", "unet")
    (tmp_path / "formats.json").write_text(json.dumps(first | {"seconds": 100.0}))
    second = run("unet", "alexnet", "resnet18", "--resume")
    assert tried == ["resnet18", "unet", "alexnet"]
    assert [row["architecture"] for row in second["rows"]] == tried
    assert second["started_at"] == first["started_at"]
    assert second["seconds"] >= 100
    assert [row["architecture"] for row in run("unet")["rows"]] == ["unet"]
    capsys.readouterr()


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Both stages on a small network, without the programs, which take seconds to write."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3),
        nn.ConvTranspose2d(16, 8, 2),
    ).eval()  # fmt: skip
    folder = tmp_path_factory.mktemp("formats")
    fastpath = torch.backends.mha.get_fastpath_enabled()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(format_stages, "PROGRAMS", ())
        patch.setattr(format_stages, "specimen", lambda name: network)
        exported = format_stages.export("unet", folder)
        compressed = format_stages.compress("unet", folder)
    torch.backends.mha.set_fastpath_enabled(fastpath)
    return folder, exported, compressed


def test_a_network_goes_through_both_stages(stages):
    folder, exported, compressed = stages
    assert exported["failure"] is None
    assert exported["dense_bytes"] == (folder / "dense.pt2").stat().st_size
    assert compressed["failure"] is None
    assert compressed["read_equal"]
    assert compressed["keys_equal"]
    assert compressed["layers"] == compressed["layers_wanted"] == 3
    assert compressed["factorised"] == 3
    assert {**exported, **compressed}.keys() <= formats.EMPTY.keys() | {"sizes"}
    assert list(formats.leaks(folder / "result", formats._secrets(folder))) == []


def test_a_stranger_finds_what_the_factorised_network_computes(stages):
    folder, _, _ = stages
    arrays = read_safetensors(folder / "factorised.safetensors")
    loader = format_stranger.module_at(folder / "result" / "load.py")
    told = format_stranger.found(lambda: loader.load(folder / "result"), arrays)
    assert told["failure"] is None
    assert told["error"] <= formats.TOLERANCE
    network = loader.load(folder / "result")
    assert sum(map(is_factorized, network.modules())) == 3
    dense = read_safetensors(folder / "dense.safetensors")
    assert (
        difference_of(dense["output3"], arrays["output3"]) > 1e-3
    )  # half the ranks cost something
    others = {key: 1.1 * value if key == "output3" else value for key, value in arrays.items()}
    far = format_stranger.found(lambda: loader.load(folder / "result"), others)
    assert far["error"] == pytest.approx(0.1 / 1.1, rel=1e-3)


def test_a_form_that_cannot_be_loaded_says_why(tmp_path):
    def make():
        raise RuntimeError("no such operator\nand a trace")

    told = format_stranger.found(make, {})
    assert told == {"error": None, "seconds": None, "failure": "RuntimeError: no such operator"}


def test_a_program_that_cannot_be_written_is_left_out_and_named(tmp_path, monkeypatch):
    asked = []

    def write(folder, model, plan, *, programs, **rest):
        asked.append(programs)
        if "model.onnx" in programs:
            raise ExportError("aten.roll is not known", "model.onnx")
        return []

    monkeypatch.setattr(format_stages, "write_result", write)
    row = format_stages._written("unet", nn.Identity(), None, {}, tmp_path)
    assert asked == [list(PROGRAMS), ["model.pt2"]]
    assert row["failure"] == "model.onnx: ExportError: aten.roll is not known"


def test_random_statistics_stand_where_a_fresh_network_has_zeros_and_ones():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3))
    nn.init.zeros_(model[0].weight)
    format_networks._randomise_(model)
    assert model[0].weight.any()
    assert model[1].running_mean.any()
    assert (model[1].running_var != 1).all()


def test_the_same_network_and_inputs_come_each_time():
    one, other = (format_networks.specimen("gru_classifier") for _ in range(2))
    x = format_networks.example("gru_classifier", 3)
    assert x.dtype == torch.int64
    assert torch.equal(x, format_networks.example("gru_classifier", 3))
    with torch.no_grad():
        assert torch.equal(one(x), other(x))
    assert format_networks.example("timm/levit_128s", 1).shape == (1, 3, 224, 224)
    assert format_networks.example("unet", 2).shape == (2, 3, 32, 32)
