"""Networks of several inputs, in and out."""

import pytest
import torch
from torch import nn

from compress.artifact import write_result
from compress.batch import together
from compress.export import export_program
from compress.onnx.network import export_onnx
from compress.onnx.session import Session
from compress.plan import Plan
from compress.program.read import read_program
from compress.program.steps import document_of
from search.verification import verify
from tests.compress.programs import write


class Reader(nn.Module):
    """Embeds tokens, weighs them by a mask, and classifies."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 12)
        self.classify = nn.Linear(12, 4)

    def forward(self, tokens, mask):
        return self.classify(self.embed(tokens).mul(mask[..., None]).mean(1))


def inputs(count=3):
    generator = torch.Generator().manual_seed(count)
    return torch.randint(9, (count, 7), generator=generator), torch.rand(
        count, 7, generator=generator
    )


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """One of its author's own class, and the same read from a program."""
    torch.manual_seed(0)
    network = Reader().eval()
    path = write(network, inputs(), tmp_path_factory.mktemp("p") / "in.pt2")
    return {"own": network, "program": read_program(path)}


@pytest.mark.parametrize("kind", ["own", "program"])
def test_a_program_takes_them_by_position(networks, kind, tmp_path):
    network = networks[kind]
    assert export_program(network, together(inputs()), tmp_path / "model.pt2") == 0
    found = torch.export.load(tmp_path / "model.pt2").module()
    assert torch.equal(found(*inputs(5)), network(*inputs(5)))


@pytest.mark.parametrize("kind", ["own", "program"])
def test_a_graph_takes_them_by_number(networks, kind, tmp_path):
    network = networks[kind]
    assert export_onnx(network, together(inputs()), tmp_path / "model.onnx") < 1e-5
    session = Session(tmp_path / "model.onnx")
    assert session.inputs == ["input_0", "input_1"]
    torch.testing.assert_close(session(*inputs(5)), network(*inputs(5)))


def test_a_result_has_both_and_is_verified(networks, tmp_path):
    network = networks["program"]
    first, _ = inputs()
    written = write_result(
        tmp_path,
        network,
        Plan(),
        architecture=document_of(network),
        input_shape=first.shape[1:],
        evidence={},
        example=together(inputs()),
    )
    assert {"model.pt2", "model.onnx"} <= {path.name for path in written}
    found = verify(tmp_path)
    assert [check.name for check in found.checks if check.holds] == [
        *("files", "reload", "parity", "onnx")
    ]
