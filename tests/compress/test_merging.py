import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compress.flow import Flow
from compress.merging import merged
from compress.plan import Choice, Plan
from compress.surgery import factorize_, is_factorized

# Float64 round-off of a few layers, with room to spare.
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def put(model, found):
    for name, module in found.items():
        model.set_submodule(name, module)


def merge(model, x):
    """What the network computed, after its layers were multiplied out."""
    with torch.no_grad():
        expected = model(x)
        put(model, merged(model, Flow.of(model, x)))
        torch.testing.assert_close(model(x), expected, **EXACT)


def sizes(model):
    return [tuple(w.shape) for w in model.parameters() if w.ndim > 1]


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@settings(max_examples=40, deadline=None)
@given(
    widths=st.lists(st.integers(1, 6), min_size=3, max_size=5),
    biases=st.lists(st.booleans(), min_size=4, max_size=4),
    kind=st.sampled_from(["Linear", "Conv1d", "Conv2d"]),
    seed=st.integers(0, 2**16),
)
def test_a_row_of_layers_computes_the_same_with_fewer_parameters(widths, biases, kind, seed):
    torch.manual_seed(seed)
    layers = [
        nn.Linear(i, o, bias=bias) if kind == "Linear" else getattr(nn, kind)(i, o, 1, bias=bias)
        for (i, o), bias in zip(pairwise(widths), biases, strict=False)
    ]
    model = nn.Sequential(*layers).double()
    before = count(model)
    size = {"Linear": (2, widths[0]), "Conv1d": (2, widths[0], 3), "Conv2d": (2, widths[0], 3, 2)}
    x = torch.randn(size[kind], dtype=torch.float64)
    merge(model, x)
    assert count(model) < before or all(type(layer) is getattr(nn, kind) for layer in model)
    assert merged(model, Flow.of(model, x)) == {}


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    mode=st.sampled_from(["zeros", "circular"]),
)
def test_the_earlier_layer_may_be_any_convolution(kernel, stride, padding, dilation, mode):
    earlier = nn.Conv2d(
        3, 8, kernel, stride=stride, padding=padding, dilation=dilation, padding_mode=mode
    )
    model = nn.Sequential(earlier, nn.Conv2d(8, 2, 1)).double()
    merge(model, torch.randn(2, 3, 7, 6, dtype=torch.float64))
    assert sizes(model) == [(2, 3, kernel, kernel)]
    assert [len(model[i]) for i in (0, 1)] == [1, 0]


def test_the_two_that_save_most_come_first():
    """5 -> 2 -> 3 -> 6: were the first two multiplied out, nothing narrow would be left."""
    model = nn.Sequential(nn.Linear(5, 2), nn.Linear(2, 3), nn.Linear(3, 6)).double()
    merge(model, torch.randn(3, 5, dtype=torch.float64))
    assert sizes(model) == [(2, 5), (6, 2)]
    assert type(model[0]) is nn.Linear  # untouched


def test_factorised_neighbours_meet_in_one_stage():
    model = nn.Sequential(nn.Conv2d(6, 16, 1), nn.Conv2d(16, 8, 1), nn.ReLU()).double()
    x = torch.randn(2, 6, 4, 4, dtype=torch.float64)
    factorize_(model, Plan({"0": Choice("svd", (3,)), "1": Choice("svd", (2,))}))
    merge(model, x)
    assert sizes(model) == [(2, 6, 1, 1), (8, 2, 1, 1)]
    assert [list(dict(model[i].named_children())) for i in (0, 1)] == [["reduce"], ["expand"]]


def test_a_factorised_layer_meets_a_dense_one_on_either_side():
    model = nn.Sequential(nn.Linear(9, 9), nn.Linear(9, 9), nn.Linear(9, 9)).double()
    factorize_(model, Plan({"1": Choice("svd", (2,))}))
    merge(model, torch.randn(3, 9, dtype=torch.float64))
    assert sizes(model) == [(2, 9), (9, 2)]
    assert all(is_factorized(layer) for layer in model)


def test_a_layer_of_the_same_shape_stays_plain():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).double()
    merge(model, torch.randn(3, 4, dtype=torch.float64))
    assert type(model[0]) is nn.Linear
    assert len(model[1]) == 0


NOT = {
    "dearer": [nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)],
    "as much work": [nn.Linear(4, 2), nn.Linear(2, 4)],
    "dearer by its bias": [nn.Linear(3, 2), nn.Linear(2, 5, bias=False)],
    "a nonlinearity between": [nn.Conv2d(4, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1)],
    "a pad between": [nn.Conv2d(4, 8, 1), nn.Conv2d(8, 2, 1, padding=1)],
    "a longer kernel": [nn.Conv2d(4, 8, 1), nn.Conv2d(8, 2, (1, 2))],
    "a stride": [nn.Conv2d(4, 8, 1), nn.Conv2d(8, 2, 1, stride=2)],
    "later groups": [nn.Conv2d(4, 8, 1), nn.Conv2d(8, 2, 1, groups=2)],
    "earlier groups": [nn.Conv2d(4, 8, 1, groups=2), nn.Conv2d(8, 2, 1)],
    "a transposed one": [nn.ConvTranspose2d(4, 8, 1), nn.Conv2d(8, 2, 1)],
    "two transposed": [nn.ConvTranspose2d(4, 8, 1), nn.ConvTranspose2d(8, 2, 1)],
    "other kinds": [nn.Conv2d(4, 6, 1), nn.Linear(6, 2)],
}


@pytest.mark.parametrize("case", NOT)
def test_other_neighbours_stay_two(case):
    model = nn.Sequential(*NOT[case])
    first = model[0]
    x = torch.randn(2, first.in_features) if isinstance(first, nn.Linear) else None
    x = torch.randn(2, first.in_channels, 6, 6) if x is None else x
    flow = Flow.of(model, x)
    assert flow.readers
    assert merged(model, flow) == {}


def test_what_is_found_shares_nothing_with_the_network():
    model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.Linear(8, 4)).double().eval()
    before = copy.deepcopy(model.state_dict())
    found = merged(model, Flow.of(model, torch.randn(2, 4, dtype=torch.float64)))
    assert not any(module.training for module in found["0"].modules())
    for parameter in found["0"].parameters():
        parameter.data.zero_()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert sum(parameter.numel() for parameter in found["0"].parameters()) == 16 + 4
