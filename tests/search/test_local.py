"""A network of one's own, named on a command line, without the service."""

import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from compress.load import load
from compress.recurrent.modes import Modes
from search import layer_forms, local
from search import subject as subject_module
from search.config import Augmentation, Weights
from search.errors import DataError
from search.local import UsageError, made_by
from service.commands.exits import VERDICTS
from tests.search.subjects import small, weighed_layers, weighed_race

PROMISE = ["--max-loss", "20", "--unit", "points", "--metric", "agreement", "--device", "cpu"]

MODULE = """
import torch
from search.data.arrays import Arrays
from tests.search.subjects import small
from tests.search.test_inputs import Reader

def make_model():
    torch.manual_seed(0)
    return small()

def make_data():
    x = torch.randn(300, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    return Arrays.of_images(x, train_images=x[:80])

def make_reader():
    torch.manual_seed(0)
    return Reader()

def make_text():
    ids = torch.randint(0, 9, (300, 7), generator=torch.Generator().manual_seed(3))
    return Arrays(inputs={"tokens": ids, "mask": (ids > 2).float()})

number = 3

def make_number():
    return number
"""


@pytest.fixture(autouse=True)
def no_timing(monkeypatch):
    """Networks take as long as they have parameters."""
    monkeypatch.setattr(layer_forms, "time_layers", weighed_layers)
    monkeypatch.setattr(subject_module, "race", weighed_race)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of the user's own."""
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "mine"
    sys.modules.pop("mine", None)


@pytest.fixture
def run(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["local", *map(str, arguments)])
        code = local.main()
        return code, *capsys.readouterr()

    return run


def test_a_network_and_data_of_ones_own_become_a_folder_that_loads(mine, run, tmp_path):
    out = tmp_path / "result"
    data = ["--data", f"{mine}:make_data", "--out", out, "--json", "--strategy", "uniform"]
    code, said, _ = run(f"{mine}:make_model", *data, *PROMISE)
    found = json.loads(said)
    assert code == 0
    assert (found["verdict"], found["folder"]) == ("budget_met", str(out))
    network = load(out, factory=small)
    dense = made_by(f"{mine}:make_model", torch.nn.Module)
    x = torch.randn(40, 3, 8, 8)
    assert sum(p.numel() for p in network.parameters()) < sum(p.numel() for p in dense.parameters())
    assert (network(x).argmax(1) == dense.eval()(x).argmax(1)).float().mean() > 0.7
    with pytest.raises(ValueError, match="factory"):
        load(out)


def test_a_network_of_two_inputs_becomes_a_folder_that_loads(mine, run, tmp_path, monkeypatch):
    out = tmp_path / "result"
    data = ["--data", f"{mine}:make_text", "--out", out]
    code, said, _ = run(f"{mine}:make_reader", *data, *PROMISE, "--batch", "3")
    assert code in local.EXITS.values(), said
    from tests.search.test_inputs import Reader  # noqa: PLC0415, as the module above does

    network = load(out, factory=Reader)
    assert network(torch.zeros(2, 7).long(), torch.ones(2, 7)).shape == (2, 4)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["inputs"] == [
        {"shape": [7], "dtype": "int64"},
        {"shape": [7], "dtype": "float32"},
    ]


def test_weights_and_data_may_be_files(mine, run, tmp_path, monkeypatch):
    """What is handed to the search; the search itself has tests of its own."""
    state = {key: value + 1 for key, value in small().state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 10, 10), "u1")
    np.savez(tmp_path / "x.npz", images=images)
    asked = []

    def search_ranks(model, arrays, config, **_):
        asked.append((model, arrays, config))
        raise DataError("enough is known")

    monkeypatch.setattr(local, "search_ranks", search_ranks)
    files = ["--weights", tmp_path / "w.safetensors", "--data", tmp_path / "x.npz"]
    crop = ["--transforms", '[{"center_crop": 8}]', "--mean", "0.5,0.5,0.5", "--std=2,2,2"]
    more = ["--confidence", "none", "--strategy", "vbmf", "--batch", "7", "--fold-norms"]
    more += ["--recover", "distil", "--recover-seconds", "2.5", "--augment", "flip,shift=2"]
    more += ["--minimise", "weighted", "--weight", "latency=0.75", "--weight", "macs=0.25"]
    more += ["--method", "kcp", "--method", "svd", "--modes", "lstm.weight_hh_l0=2x4:8x4"]
    assert run(f"{mine}:make_model", *files, *crop, *more, *PROMISE)[0] == 2
    ((model, arrays, config),) = asked
    assert config.methods == ("kcp", "svd")
    assert config.modes_of("lstm.weight_hh_l0") == Modes((2, 4), (8, 4))
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    given = arrays.batch(torch.tensor([3]))[0]
    wanted = (torch.from_numpy(images[3]).float() / 255 - 0.5) / 2
    assert torch.equal(given, wanted[:, 1:9, 1:9])
    assert (config.search.strategy, config.objective.batch) == ("vbmf", 7)
    assert config.objective.fold_norms
    assert config.objective.minimised == Weights(latency=0.75, macs=0.25)
    assert (config.budget.confidence, config.budget.max_loss) == (None, 20)
    assert (config.recovery.method, config.recovery.max_seconds) == ("distil", 2.5)
    assert config.recovery.augment == Augmentation(flip=True, shift=2)


@pytest.mark.parametrize(
    ("model", "data", "told"),
    [
        ("mine", "digits", "PACKAGE:FUNCTION"),
        ("hf-hub:someone", "digits", "PACKAGE:FUNCTION"),
        ("nowhere_at_all:make", "digits", "nowhere_at_all"),
        ("mine:make_nothing", "digits", "make_nothing"),
        ("mine:make_number", "digits", "returns int, Module was wanted"),
        ("mine:make_model", "imagenet", "no file, none of digits"),
        ("mine:make_model", "mine:make_model", "returns Sequential, Arrays was wanted"),
        ("mine:make_model", "mine:make_text", "refuses tokens of shape"),
    ],
)
def test_what_leads_nowhere_is_wrong_usage(mine, run, model, data, told):
    code, _, err = run(model, "--data", data, *PROMISE)
    assert (code, told in err) == (2, True), err


def test_weights_of_another_network_are_wrong_usage(mine, run, tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "w.safetensors")
    data = ["--data", "mine:make_data", "--weights", tmp_path / "w.safetensors"]
    code, _, err = run("mine:make_model", *data, *PROMISE)
    assert (code, "Missing key" in err) == (2, True)


def test_a_reference_that_is_none_is_never_imported():
    with pytest.raises(UsageError):
        made_by("os;system:x", object)


def test_the_exit_codes_are_those_of_the_service():
    assert {verdict: int(code) for verdict, code in VERDICTS.items()} == local.EXITS
