"""Files that plain torch and onnxruntime read, for any batch and any number of steps."""

import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from compress.export import export_program
from compress.onnx.network import export_onnx
from compress.onnx.session import Session
from compress.onnx_program.read import read_onnx
from compress.recurrent import layer, projection
from compress.recurrent.formats import network_of
from compress.recurrent.layer import GRU, LSTM
from compress.recurrent.modes import Modes
from tests.compress.recurrent.matrices import projection_of

# float32 of a network of two layers and eleven steps
CLOSE = {"rtol": 0, "atol": 1e-6}


class Tagger(nn.Module):
    """(N, T, 6) to (N, T, 3)."""

    def __init__(self, recurrent):
        super().__init__()
        self.recurrent = recurrent
        width = recurrent.width * (1 + recurrent.bidirectional)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.recurrent(x)[0])


def held(name, in_features, out_features, ranks):
    network = network_of(name, Modes.of(in_features, out_features), ranks)
    return projection_of(network).float()


def test_a_program_takes_any_batch_and_any_number_of_steps(tmp_path):
    weights = {
        "weight_ih_l0": held("tensor_ring", 6, 16, (2, 2, 2, 2)),
        "weight_hh_l0": held("kcp", 4, 16, (2, 2)),
    }
    model = Tagger(LSTM(6, 4, bidirectional=True, batch_first=True, weights=weights)).eval()
    assert export_program(model, torch.randn(2, 5, 6), tmp_path / "model.pt2") < 1e-5
    program = torch.export.load(tmp_path / "model.pt2")
    x = torch.randn(2, 11, 6)  # the export has tried other batches
    torch.testing.assert_close(program.module()(x), model(x), **CLOSE)
    scans = [node for node in program.graph.nodes if node.target is torch.ops.higher_order.scan]
    assert len(scans) == 2


def test_a_graph_of_onnx_takes_any_batch_and_any_number_of_steps(tmp_path):
    weights = {"weight_hh_l0": held("kcp", 4, 12, (2, 1))}
    model = Tagger(GRU(6, 4, batch_first=True, weights=weights)).eval()
    assert export_onnx(model, torch.randn(2, 5, 6), tmp_path / "model.onnx") < 1e-5
    batch, steps, features = axes_of(tmp_path / "model.onnx")
    assert (batch, features) == ("batch", 6)
    assert isinstance(steps, str)
    session = Session(tmp_path / "model.onnx")
    for size in ((1, 1), (3, 11)):
        x = torch.randn(*size, 6)
        torch.testing.assert_close(session(x), model(x).detach(), **CLOSE)


def axes_of(path):
    (declared,) = onnx.load(path).graph.input
    return [axis.dim_param or axis.dim_value for axis in declared.type.tensor_type.shape.dim]


class Reader(nn.Module):
    """(N, T, 6) to (N, 4), by the last step."""

    def __init__(self, kind):
        super().__init__()
        self.recurrent = kind(6, 4, batch_first=True)

    def forward(self, x):
        return self.recurrent(x)[0][:, -1]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_graph_of_onnx_names_as_free_what_is_free(tmp_path, kind):
    dense, path = Reader(kind).eval(), tmp_path / "dense.onnx"
    export_onnx(dense, torch.randn(2, 5, 6), path)
    batch, steps, features = axes_of(path)
    assert (batch, features) == ("batch", 6)
    x = torch.randn(3, steps if isinstance(steps, int) else 11, 6)  # as the exporter has it
    torch.testing.assert_close(Session(path)(x), dense(x), **CLOSE)
    torch.testing.assert_close(read_onnx(path)(x), dense(x), **CLOSE)


def test_what_ships_with_a_result_needs_torch_alone(tmp_path):
    for module in (projection, layer):
        path = Path(module.__file__)
        (tmp_path / path.name).write_bytes(path.read_bytes())
    lines = (
        "import sys, layer, projection",
        "assert not {name.partition('.')[0] for name in sys.modules} & {'compress', 'search'}",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=tmp_path, check=True)
