import copy

import pytest
import torch
from torch import nn

from compress.errors import ExportError
from compress.onnx.session import Session
from compress.onnx.template import Template
from compress.plan import Choice, Plan
from compress.surgery import factorize_

PLAN = Plan(
    {
        "body.conv": Choice("tucker2", (4, 2)),
        "same": Choice("svd", (2,)),
        "upsample": Choice("cp3", (8,)),
    }
)
EXACT = {"rtol": 1e-4, "atol": 1e-5}
X = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    """(N, 3, 8, 8) -> (N, 17, 17, 4).

    A block with a norm and a residual, a transposed layer, a linear one called twice on inputs of
    four axes, and one whose weight is read by its parent alone.
    """

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential()
        self.body.conv = nn.Conv2d(3, 12, 3, padding="same", padding_mode="reflect", bias=False)
        self.body.norm = nn.BatchNorm2d(12)
        self.residual = nn.Conv2d(3, 12, 1)
        self.upsample = nn.ConvTranspose2d(12, 8, 3, stride=2)
        self.same = nn.Linear(8, 8)
        self.read = nn.Linear(8, 4)

    def forward(self, x):
        x = self.body(x).relu() + self.residual(x)
        x = self.upsample(x).permute(0, 2, 3, 1)
        x = self.same(torch.relu(self.same(x)))
        return nn.functional.linear(x.relu(), self.read.weight, self.read.bias)


def network():
    torch.manual_seed(0)
    model = Network()
    with torch.no_grad():
        model(torch.randn(16, 3, 8, 8))
    return model.eval()


def check(template, model):
    for x in (X, X[:1]):
        with torch.no_grad():
            torch.testing.assert_close(Session(template.filled(model))(x), model(x), **EXACT)


@pytest.fixture(scope="module")
def template():
    return Template(network(), X[:1])


def test_a_network_made_from_the_dense_one_fills_its_graph(template):
    dense = network()
    model = copy.deepcopy(dense)
    factorize_(model, PLAN)
    with torch.no_grad():  # what repair does to the frame
        model.body.norm.running_mean += 0.5
        model.read.weight *= 2
    for each in (dense, model, dense):
        assert template.fits(each)
        check(template, each)


def test_the_weights_are_those_of_the_network_and_no_others(template):
    model = network()
    factorize_(model, PLAN)
    graph = template.filled(model).graph
    weights = {weight.name for weight in graph.initializer}
    assert {"body.conv.core.weight", "body.norm.running_mean", "read.bias"} <= weights
    assert "body.conv.weight" not in weights
    shared = {weight for weight in weights if weight.startswith("same")}
    assert len(shared) == 3  # of two stages and a bias, for both calls
    assert str(graph).count("metadata") == 0


def test_the_dense_network_fills_the_graph_of_a_factorised_one():
    model = network()
    factorize_(model, PLAN)
    template = Template(model, X[:1])
    assert template.fits(network())
    check(template, network())


@pytest.mark.parametrize("change", ["norm", "extra", "wider", "read"])
def test_a_network_with_another_frame_does_not_fit(template, change):
    model = network()
    if change == "norm":
        model.body.norm = nn.Identity()
    elif change == "extra":
        model.extra = nn.ReLU()
    elif change == "wider":
        model.body.norm = nn.BatchNorm2d(9)
    else:  # no call of it, so no place for what replaces it
        factorize_(model, Plan({"read": Choice("svd", (2,))}))
    assert not template.fits(model)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else x


def test_what_cannot_be_exported_is_an_error_of_ours():
    with pytest.raises(ExportError, match="ONNX export failed") as caught:
        Template(Branching(), torch.zeros(1, 2))
    assert caught.value.file == "model.onnx"
    assert "\n" not in str(caught.value)


class AtOnce(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv1d(2, 2, 1)

    def forward(self, x):
        return self.layer(self.layer(x))


def test_two_calls_without_a_node_between_look_like_one_so_outputs_are_to_be_compared():
    model, x = AtOnce().eval(), torch.randn(2, 2, 5)
    filled = Session(Template(model, x).filled(model))(x)
    assert not torch.allclose(filled, model(x))
