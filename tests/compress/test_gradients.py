import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress.errors import CompressError
from compress.gradients import gradient_moments
from tests.compress.test_calibration import Twice


class Tiny(nn.Module):
    """A convolution in groups, one called twice, a transposed one and a linear layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1, groups=1)
        self.twice = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2)
        self.last = nn.Linear(6, 5)
        self.unused = nn.Linear(5, 2)

    def forward(self, x):
        x = F.relu(self.first(x), inplace=True)  # which writes into what the layer put out
        x = self.twice(F.relu(self.twice(x)))
        x = self.up(x).mean((2, 3))
        y = self.last(x)
        self.unused(y)
        return y


NAMES = ("first", "twice", "up", "last", "unused")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Tiny().double().eval()


def by_hand(network, x, labels):
    """Rows (outputs, O) of every layer's gradients, one input at a time."""
    rows = {name: [] for name in NAMES}
    for image, label in zip(x, labels, strict=True):
        added = []

        def add_zeros(name, y, added=added):
            zeros = torch.zeros_like(y, requires_grad=True)
            added.append((name, zeros))
            return y + zeros

        handles = [
            network.get_submodule(name).register_forward_hook(
                lambda _m, _a, y, name=name, add=add_zeros: add(name, y)
            )
            for name in NAMES
        ]
        loss = F.cross_entropy(network(image[None]), label[None])
        gradients = torch.autograd.grad(
            loss, [zeros for _, zeros in added], allow_unused=True, materialize_grads=True
        )
        for (name, _), gradient in zip(added, gradients, strict=True):
            channels_last = gradient.movedim(1, -1).flatten(0, -2)
            rows[name].append(channels_last)
        for handle in handles:
            handle.remove()
    return {name: torch.cat(each) for name, each in rows.items()}


def test_the_moments_are_the_averages_of_autograds_gradients(network):
    x, labels = torch.randn(6, 3, 5, 4, dtype=torch.float64), torch.arange(6) % 5
    expected = by_hand(network, x, labels)
    found = gradient_moments(network, x.split(4), NAMES, labels=labels.split(4))
    for name in ("first", "last", "unused"):
        rows = expected[name]
        torch.testing.assert_close(found[name].second, rows.T @ rows / len(rows))
    for name in ("twice", "up"):
        rows = expected[name].unflatten(1, (2, -1)).transpose(0, 1)
        torch.testing.assert_close(found[name].second, rows.mT @ rows / rows.shape[1])
    assert found["first"].second.abs().max() > 0
    assert [found[name].count for name in NAMES] == [6 * 20, 2 * 6 * 20, 6 * 80, 6, 0]
    assert {each.inputs for each in found.values()} == {6}
    assert not found["unused"].second.any()


@pytest.mark.parametrize("name", ["first", "twice"])
def test_the_diagonal_is_that_of_the_whole(network, name):
    x = torch.randn(3, 3, 5, 4, dtype=torch.float64)
    whole = gradient_moments(network, [x], [name])[name]
    diagonal = gradient_moments(network, [x], [name], diagonal=[name])[name]
    torch.testing.assert_close(diagonal.second, whole.second.diagonal(dim1=-2, dim2=-1))
    assert torch.equal(diagonal.metric, diagonal.second)
    assert whole.metric.shape == whole.second.shape


def test_gradients_without_labels_have_the_fisher_information_as_their_second_moment():
    """Of the logits it is diag(p) - p p^T; many inputs that are the same average the signs."""
    linear = nn.Linear(2, 4, dtype=torch.float64)
    x = torch.randn(1, 2, dtype=torch.float64)
    shares = linear(x).softmax(1)[0].detach()
    fisher = torch.diag(shares) - torch.outer(shares, shares)
    found = gradient_moments(nn.Sequential(linear), [x.expand(20_000, 2)], ["0"])["0"].second
    torch.testing.assert_close(found, fisher, rtol=0, atol=0.01)
    torch.testing.assert_close(found.sum(1), torch.zeros(4, dtype=torch.float64))


def test_gradients_of_values_are_of_variance_one():
    linear = nn.Linear(2, 3, dtype=torch.float64)
    x = torch.randn(20_000, 2, dtype=torch.float64)
    found = gradient_moments(nn.Sequential(linear), [x], ["0"], likelihood="values")["0"]
    torch.testing.assert_close(found.second, torch.eye(3).double(), rtol=0, atol=0.03)
    assert torch.equal(found.second.diagonal(), torch.ones(3).double())


def test_the_same_call_gives_the_same_moments_however_the_inputs_are_split(network):
    x = torch.randn(6, 3, 5, 4, dtype=torch.float64)
    one, same, split = (
        gradient_moments(network, batches, ["first"])["first"].second
        for batches in ([x], [x], x.split(2))
    )
    assert torch.equal(one, same)
    torch.testing.assert_close(split, one)


def test_the_network_is_left_as_it_was(network):
    network.train().first.weight.requires_grad_(False)
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    gradient_moments(network, [x.detach()], NAMES)
    with pytest.raises(RuntimeError, match="channels"):
        gradient_moments(network, [x[:, :2].detach()], NAMES)
    wanting = [name for name, weight in network.named_parameters() if weight.requires_grad]
    assert wanting == [name for name, _ in network.named_parameters() if name != "first.weight"]
    assert all(weight.grad is None for weight in network.parameters())
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())


def test_half_precision_does_not_overflow():
    linear = nn.Linear(2, 3).bfloat16()
    x = torch.ones(600, 2, dtype=torch.bfloat16)
    found = gradient_moments(nn.Sequential(linear), [x], ["0"], likelihood="values")["0"]
    assert torch.equal(found.second.diagonal(), torch.ones(3).double())


def test_what_is_not_finite_is_told():
    x = torch.full((2, 3, 8, 8), torch.inf)
    with pytest.raises(CompressError, match="outputs of layer 'conv' is not finite"):
        gradient_moments(Twice(), [x], ["conv"])
