import json

import pytest
import torch
from safetensors.torch import save_file

from compress.architectures import build
from search import inspection
from tests.compress.programs import write


@pytest.fixture
def run(monkeypatch):
    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["inspection", *map(str, arguments)])
        inspection.main()

    return run


def test_every_layer_is_named_with_its_methods(run, capsys):
    run("digits_cnn", "--json")
    layers = {row["name"]: row["methods"] for row in json.loads(capsys.readouterr().out)["layers"]}
    assert "tucker2" in layers["conv2"]
    assert layers["classify"] == ["svd", "semi_tensor"]


def test_every_tensor_that_does_not_fit_is_told(run, tmp_path):
    state = build("digits_cnn").state_dict()
    missing = [key for key in state if not key.startswith("conv")]
    save_file({key: state[key] for key in state if key not in missing}, tmp_path / "w")
    with pytest.raises(SystemExit) as caught:
        run("digits_cnn", "--weights", tmp_path / "w")
    assert len(missing) > 10
    assert all(f"\n{key} is missing" in caught.value.code for key in missing)


def test_weights_that_fit_are_said_to(run, tmp_path, capsys):
    torch.save(build("digits_cnn").state_dict(), tmp_path / "w.pth")
    run("digits_cnn", "--weights", tmp_path / "w.pth")
    assert "layers can be factorised" in capsys.readouterr().out


def test_an_unknown_architecture_is_wrong_usage(run, capsys):
    with pytest.raises(SystemExit) as caught:
        run("timm/resnet81")
    assert caught.value.code == 2
    assert "timm/resnet18" in capsys.readouterr().err


def test_a_program_is_inspected_by_its_own_names(run, tmp_path, capsys):
    path = write(build("digits_cnn"), (torch.ones(2, 1, 32, 32),), tmp_path / "mine.pt2")
    run(path, "--json")
    layers = {row["name"]: row["methods"] for row in json.loads(capsys.readouterr().out)["layers"]}
    assert "tucker2" in layers["conv2"]


@pytest.mark.parametrize(
    ("arguments", "code"), [(["gone.pt2"], 2), (["mine.pt2", "--weights", "mine.pt2"], 2)]
)
def test_a_program_that_cannot_be_meant_is_a_usage_error(run, tmp_path, arguments, code):
    (tmp_path / "mine.pt2").write_bytes(b"")
    with pytest.raises(SystemExit) as caught:
        run(*[tmp_path / word if word.endswith(".pt2") else word for word in arguments])
    assert caught.value.code == code


def test_a_program_that_is_none_says_why(run, tmp_path):
    (tmp_path / "mine.pt2").write_bytes(b"no archive")
    with pytest.raises(SystemExit) as caught:
        run(tmp_path / "mine.pt2")
    assert "cannot be read" in caught.value.code
