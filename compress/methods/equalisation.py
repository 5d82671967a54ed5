"""The stages of a layer brought to one scale, so that they train, round and quantise alike.

A decomposition in the norm of a metric leaves its first stages as large as the inverse of one root
of it, and the last as large as that of another: six orders apart where the loss counts. A step of
an optimiser that is small for one is then ruin for the other. What one stage puts out on a channel
may be made larger, and what the next takes in as much smaller, as Nagel et al. do to neighbouring
layers in "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from compress.shape import LayerShape, LinearShape

SWEEPS = 8


def equalised(
    shapes: Sequence[LayerShape], kernels: Sequence[Tensor], *, parted: bool = False
) -> list[Tensor]:
    """The kernels of stages in a row, each channel between two of them scaled evenly.

    Args:
        shapes: of the stages.
        kernels: of each stage, (O, I / G, *kernel) or (O, I).
        parted: whether channels are parted into slices between stages, so that those of one are
            not those of the next one by one; then all are scaled alike.

    Returns:
        Kernels of the same product: every scale is a power of two, which rounds nothing.
    """
    scaled = list(kernels)
    for _ in range(SWEEPS):
        for i in range(len(kernels) - 1):
            puts, takes = scaled[i].flatten(1).norm(dim=1), _columns(shapes[i + 1], scaled[i + 1])
            if parted:
                puts, takes = puts.norm()[None], takes.norm()[None]
            scale = _power_of_two(takes, puts)
            scaled[i] = scaled[i] * scale.reshape(-1, *[1] * (scaled[i].ndim - 1))
            scaled[i + 1] = _columns_divided(shapes[i + 1], scaled[i + 1], scale)
    return scaled


def _power_of_two(takes: Tensor, puts: Tensor) -> Tensor:
    """What makes `puts` as large as `takes`; 1 where either is zero."""
    both = (takes > 0) & (puts > 0)
    ratio = torch.where(both, takes, 1.0) / torch.where(both, puts, 1.0)
    return (ratio.log2() / 2).round().exp2()


def _columns(shape: LayerShape, kernel: Tensor) -> Tensor:
    """Norm of what each input channel is multiplied by, (I,)."""
    return _by_groups(shape, kernel).norm(dim=(1, 3)).flatten()


def _columns_divided(shape: LayerShape, kernel: Tensor, scale: Tensor) -> Tensor:
    parts = _by_groups(shape, kernel)
    divisor = scale if len(scale) == 1 else scale.reshape(len(parts), 1, -1, 1)
    return (parts / divisor).reshape(kernel.shape)


def _by_groups(shape: LayerShape, kernel: Tensor) -> Tensor:
    """(G, O / G, I / G, places)."""
    groups = 1 if isinstance(shape, LinearShape) else shape.groups
    return kernel.reshape(groups, len(kernel) // groups, kernel.shape[1], -1)
