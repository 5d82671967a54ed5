"""Batch norms that are folded, and those that are not."""

import copy

import pytest
import torch
from torch import nn

from compress.flow import Flow
from compress.folding import folded
from compress.load import FactorizedLayer
from compress.plan import Choice, Plan
from compress.surgery import factorize_, is_factorized

# Float64 round-off of a few layers, with room to spare.
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def trained(norm):
    """The norm in eval mode, with statistics and values of its own."""
    generator = torch.Generator().manual_seed(1)
    for tensor in (*norm.parameters(), *norm.buffers()):
        if tensor.is_floating_point():
            tensor.data.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return norm.eval()


PAIRS = {
    "convolution": (nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    "no bias": (nn.Conv2d(4, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    "not affine": (nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6, affine=False), (2, 4, 5, 5)),
    "1d": (nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), (2, 4, 7)),
    "3d": (nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3), (2, 2, 3, 3, 3)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    "transposed in groups": (
        nn.ConvTranspose2d(4, 6, 3, padding=1, groups=2, bias=False),
        nn.BatchNorm2d(6),
        (2, 4, 5, 5),
    ),
    "linear": (nn.Linear(4, 6), nn.BatchNorm1d(6), (3, 4)),
    "linear without bias": (nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), (3, 4)),
}


def put(model, found):
    for name, module in found.items():
        model.set_submodule(name, module)


@pytest.mark.parametrize("pair", PAIRS)
def test_a_norm_goes_into_the_layer_before_it(pair):
    layer, norm, size = PAIRS[pair]
    model = nn.Sequential(copy.deepcopy(layer), trained(copy.deepcopy(norm)), nn.ReLU()).double()
    x = torch.randn(size, dtype=torch.float64)
    expected = model(x)
    assert expected.any()
    put(model, folded(model, Flow.of(model, x)))
    assert is_factorized(model[1])
    assert len(model[1]) == 0
    torch.testing.assert_close(model(x), expected, **EXACT)
    kept = type(layer) if layer.bias is not None else FactorizedLayer
    assert type(model[0]) is kept  # one without a bias is not what the architecture has there


@pytest.mark.parametrize(
    "choice", [Choice("svd", (3,)), Choice("tucker2", (3, 2)), Choice("cp3", (4,))]
)
def test_a_norm_goes_into_the_last_stage_of_a_factorised_layer(choice):
    conv = nn.Conv2d(4, 6, 3, padding=1, bias=False)
    model = nn.Sequential(conv, trained(nn.BatchNorm2d(6))).double()
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    flow = Flow.of(model, x)
    factorize_(model, Plan({"0": choice}))
    expected, stages = model(x), dict(model[0].named_children())
    put(model, folded(model, flow))
    torch.testing.assert_close(model(x), expected, **EXACT)
    assert dict(model[0].named_children()).keys() == stages.keys()
    assert model[0][0] is stages["reduce"]


def test_norms_in_a_row_go_into_one_layer():
    norms = [trained(nn.BatchNorm2d(6)) for _ in range(2)]
    model = nn.Sequential(nn.Conv2d(4, 6, 1), norms[0], nn.Identity(), norms[1]).double()
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    expected = model(x)
    put(model, folded(model, Flow.of(model, x)))
    assert type(model[0]) is nn.Conv2d
    assert is_factorized(model[1])
    assert is_factorized(model[3])
    torch.testing.assert_close(model(x), expected, **EXACT)


class Own(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) + 1


def training():
    return nn.BatchNorm2d(4).train()


LEFT = {
    "in training mode": ([nn.Conv2d(4, 4, 1), training()], (2, 4, 5, 5)),
    "without statistics": (
        [nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False).eval()],
        (2, 4, 5, 5),
    ),
    "a subclass": ([nn.Conv2d(4, 4, 1), Own(4).eval()], (2, 4, 5, 5)),
    "over another axis": ([nn.Linear(4, 4), nn.BatchNorm1d(4).eval()], (2, 4, 4)),
    "of rows of one image": ([nn.Conv1d(4, 4, 1), nn.BatchNorm1d(4).eval()], (4, 4)),
    "before the layer": ([nn.BatchNorm2d(4).eval(), nn.ReLU(), nn.Conv2d(4, 4, 1)], (2, 4, 5, 5)),
    "after a function": ([nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4).eval()], (2, 4, 5, 5)),
    "after another kind": ([nn.Embedding(4, 4), nn.Flatten(), nn.BatchNorm1d(4).eval()], None),
}


@pytest.mark.parametrize("case", LEFT)
def test_every_other_norm_is_left(case):
    modules, size = LEFT[case]
    model = nn.Sequential(*modules)
    x = torch.zeros(2, 1, dtype=torch.long) if size is None else torch.randn(size)
    flow = Flow.of(model, x)
    assert flow.readers
    assert folded(model, flow) == {}


def test_what_is_found_shares_nothing_with_the_network():
    model = nn.Sequential(nn.Conv2d(4, 6, 1), trained(nn.BatchNorm2d(6)))
    model[0].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    found = folded(model, Flow.of(model, torch.randn(2, 4, 5, 5)))
    assert not any(parameter.requires_grad for parameter in found["0"].parameters())
    for parameter in found["0"].parameters():
        parameter.data.zero_()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
