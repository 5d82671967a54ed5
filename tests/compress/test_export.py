import copy
import getpass
import logging
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from compress.errors import ExportError
from compress.export import export_program, parity
from compress.plan import Choice, Plan
from compress.surgery import factorize_

TORCH_LOG = logging.getLogger("torch.fx.experimental.symbolic_shapes")

EXAMPLE = torch.full((1, 3, 8, 8), 0.123456789)


@pytest.fixture
def compressed(tiny):
    factorize_(tiny, Plan({"conv2": Choice("svd", (4,)), "conv3": Choice("spatial_svd", (5,))}))
    return tiny


@pytest.fixture
def exported(compressed, tmp_path):
    export_program(compressed, EXAMPLE, tmp_path / "model.pt2")
    return tmp_path / "model.pt2"


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_file_computes_what_the_network_computes(compressed, exported, batch):
    x = torch.randn(batch, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.load(exported).module()(x), compressed(x))


def test_nothing_of_this_machine_is_in_the_file(exported):
    with zipfile.ZipFile(exported) as archive:
        names = archive.namelist()
        contents = b"".join(archive.read(name) for name in names)
    contents += exported.read_bytes() + " ".join(names).encode()
    words = {
        str(Path(__file__).resolve().parents[2]),
        str(exported.parent),
        str(Path.home()) + "/",
        sys.prefix,
        "site-packages",
        "compress/",
        "compress.",
        ".py",
        f"/{getpass.getuser()}/",
    }
    assert b"conv2" in contents
    assert [word for word in words if word.encode() in contents] == []
    assert EXAMPLE[0, 0, 0, :2].numpy().tobytes() not in contents


def test_equal_networks_give_equal_files(compressed, exported, tmp_path):
    export_program(copy.deepcopy(compressed), EXAMPLE, tmp_path / "other.pt2")
    assert (tmp_path / "other.pt2").read_bytes() == exported.read_bytes()


def test_the_network_is_left_as_it_was(compressed, tmp_path):
    compressed.train()
    compressed.conv1.eval()
    state = {key: value.clone() for key, value in compressed.state_dict().items()}
    modes = [module.training for module in compressed.modules()]
    export_program(compressed, EXAMPLE, tmp_path / "model.pt2")
    assert [module.training for module in compressed.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in compressed.state_dict().items())


def test_the_difference_that_comes_back_is_relative_to_the_outputs():
    class Off(nn.Module):
        def forward(self, x):
            return 1000 * x + 1

    class Exact(nn.Module):
        def forward(self, x):
            return 1000 * x

    generator = torch.Generator().manual_seed(0)
    largest = [float(torch.randn(n, 2, generator=generator).abs().max()) for n in (1, 3)]
    assert parity(Exact(), Off(), torch.zeros(1, 2)) == pytest.approx(
        1 / (1000 * min(largest)), rel=1e-2
    )


def test_a_file_that_computes_something_else_is_removed(compressed, tmp_path, monkeypatch):
    monkeypatch.setattr("compress.export.parity", lambda *_: 2e-4)
    with pytest.raises(ExportError, match=r"differs by 2\.0e-04, 0\.0001 is allowed"):
        export_program(compressed, EXAMPLE, tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


class Branching(nn.Module):
    """Its path depends on its input, so no program can hold it; and it is not quiet."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        print("printed inside")
        TORCH_LOG.error("logged inside")
        return self.layer(x) if x.sum() > 0 else x


def test_a_network_that_cannot_be_exported_is_an_error_of_ours(tmp_path):
    with pytest.raises(ExportError, match=r"torch\.export failed"):
        export_program(Branching(), torch.zeros(1, 2), tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


def test_the_exporter_keeps_quiet_even_when_it_fails(tmp_path, capfd):
    with pytest.raises(ExportError) as caught:
        export_program(Branching(), torch.zeros(1, 2), tmp_path / "model.pt2")
    TORCH_LOG.error("torch may speak again")
    printed = capfd.readouterr()
    assert printed.out == ""
    assert [line for line in printed.err.splitlines() if line] == [printed.err.strip()]
    assert printed.err.strip().endswith("torch may speak again")
    assert str(Path(__file__)) not in str(caught.value)


def test_a_network_whose_outputs_are_zero_has_no_difference(tmp_path):
    model = nn.Linear(2, 2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    assert export_program(model, torch.zeros(1, 2), tmp_path / "model.pt2") == 0
