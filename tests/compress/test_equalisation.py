import pytest
import torch
from torch import nn

from compress.kernels import kernel_of
from compress.layers import shape_of
from compress.methods.equalisation import equalised
from compress.methods.registry import METHODS
from compress.metric import Metric
from compress.plan import Choice
from compress.shape import weighted
from compress.surgery import factorized

LAYERS = {
    "conv": nn.Conv2d(16, 24, 3),
    "grouped": nn.Conv2d(16, 32, 3, groups=2),
    "transposed": nn.ConvTranspose2d(16, 24, 3),
    "linear": nn.Linear(36, 24),
}
CASES = [
    (name, method)
    for name, layer in LAYERS.items()
    for method in METHODS.values()
    if method.refusal(shape_of(layer)) is None
]


def steep(layer, generator):
    """A norm in which some inputs and outputs count a million times as much as others."""
    shape = shape_of(layer)
    groups = getattr(shape, "groups", 1)
    kernel = kernel_of(shape, layer.weight)
    outputs, inputs = len(kernel), kernel[0].numel()
    moments = []
    for count, size, scale in ((groups, inputs, 1.0), (1, outputs, 1e-8)):  # gradients are small
        root = torch.randn(count, size, 2 * size, generator=generator, dtype=torch.float64)
        root *= torch.logspace(0, -3, size, dtype=torch.float64)[:, None]
        moments.append(scale * root @ root.mT)
    return moments[0] if groups > 1 else Metric(moments[0][0], moments[1][0])


def spread(layer):
    norms = [float(stage.weight.detach().norm()) for stage in layer if hasattr(stage, "weight")]
    return max(norms) / min(norms)


@pytest.mark.parametrize(("name", "method"), CASES, ids=[f"{n}-{m.name}" for n, m in CASES])
def test_stages_are_of_one_scale_and_compute_the_same(name, method, monkeypatch):
    layer = LAYERS[name]
    generator = torch.Generator().manual_seed(0)
    metric, ranks = steep(layer, generator), method.grid(shape_of(layer))[0]
    found = factorized(layer, Choice(method.name, ranks), metric)
    monkeypatch.setattr(
        "compress.methods.method.equalised", lambda _shapes, kernels, parted: kernels
    )
    plain = factorized(layer, Choice(method.name, ranks), metric)
    x = torch.randn(2, 16, 5, 5) if name != "linear" else torch.randn(2, 36)
    assert torch.equal(found(x), plain(x))
    assert spread(found) < 4


def test_without_it_the_stages_of_a_tucker_decomposition_lie_far_apart(monkeypatch):
    monkeypatch.setattr(
        "compress.methods.method.equalised", lambda _shapes, kernels, parted: kernels
    )
    metric = steep(LAYERS["conv"], torch.Generator().manual_seed(0))
    assert spread(factorized(LAYERS["conv"], Choice("tucker2", (8, 8)), metric)) > 30


def test_a_channel_of_zeros_stays_as_it_is():
    shapes = [
        shape for _, shape in weighted(METHODS["svd"].stages(shape_of(LAYERS["linear"]), (2,)))
    ]
    first, second = torch.ones(2, 36), torch.ones(24, 2)
    first[0] = 0
    second[:, 1] = 0
    found = equalised(shapes, [first, second])
    assert torch.equal(found[0], first)
    assert torch.equal(found[1], second)
