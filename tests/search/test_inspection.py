import json

import pytest
import torch
from safetensors.torch import save_file

from compress.architectures import build
from search import inspection


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
