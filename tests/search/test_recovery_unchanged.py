"""What comes before the first factorised layer is found by calling the network."""

import torch
from torch import nn

from compress.plan import Choice, Plan
from compress.surgery import factorize_
from search.recovery.unchanged import unchanged
from tests.search.subjects import small

X = torch.randn(1, 3, 8, 8)


class Residual(nn.Module):
    """Calls `second`, and `first` before and after it; has a weight of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.last, self.stem, self.first = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.entry = nn.Sequential(self.first)
        self.second = nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, x):
        stem = self.scale * self.stem(x)
        x = self.second(self.entry(stem))[:, :3]
        return self.last(self.first(x) + stem)


def test_layers_and_norms_before_the_first_factorised_layer_are_found():
    model = small().train()
    factorize_(model, Plan({"conv3": Choice("svd", (4,)), "conv2": Choice("svd", (4,))}))
    assert unchanged(model, X) == {"conv1.weight", "norm1.weight", "norm1.bias"}
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_a_network_whose_first_layer_is_factorised_or_none_has_nothing_before():
    model = small()
    assert unchanged(model, X) == set()
    factorize_(model, Plan({"conv1": Choice("svd", (2,))}))
    assert unchanged(model, X) == set()


def test_a_narrowed_layer_learns_and_what_comes_after_it():
    model = small()
    model.set_submodule("norm1", narrowed(model.norm1))
    factorize_(model, Plan({"conv3": Choice("svd", (4,))}))
    assert unchanged(model, X) == {"conv1.weight"}


def narrowed(norm):
    norm.narrowed = True
    return norm


def test_calls_decide_and_not_names_and_what_is_called_again_learns():
    model = Residual()
    factorize_(model, Plan({"second": Choice("svd", (2,))}))
    assert unchanged(model, X) == {"stem.weight", "stem.bias"}
