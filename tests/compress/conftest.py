"""Networks small enough to run in milliseconds."""

import pytest
import torch

from compress.load import build_sequential


@pytest.fixture
def tiny():
    """(N, 3, 8, 8) -> (N, 5): three convolutions with batch norm, one linear layer, eval mode.

    Its batch norms have statistics of their own, as after training.
    """
    model = build_sequential(TINY_ROWS)
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(32, 3, 8, 8))
    return model.eval()


@pytest.fixture
def tiny_architecture():
    """What the manifest of a result says of `tiny`."""
    return {"registry": "examples", "name": "tiny", "rows": TINY_ROWS}


def _conv(name, width_in, width_out, **arguments):
    settings = {"in_channels": width_in, "out_channels": width_out, "kernel_size": 3, **arguments}
    return [
        [f"conv{name}", "Conv2d", settings],
        [f"norm{name}", "BatchNorm2d", {"num_features": width_out}],
        [f"relu{name}", "ReLU", {}],
    ]


TINY_ROWS = [
    *_conv("1", 3, 8, padding=1, bias=False),
    *_conv("2", 8, 12, padding=1, stride=2, bias=False),
    *_conv("3", 12, 16, padding="same"),
    ["pool", "AdaptiveAvgPool2d", {"output_size": 1}],
    ["flatten", "Flatten", {}],
    ["classify", "Linear", {"in_features": 16, "out_features": 5}],
]
