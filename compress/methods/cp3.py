"""`cp3`: a 1x1 convolution, a depthwise one with the kernel, and a 1x1.

Denton et al., "Exploiting Linear Structure Within Convolutional Networks for Efficient
Evaluation", NeurIPS 2014 (CP of a kernel); the places stay together, as in Astrid and Lee,
"CP-decomposition with Tensor Power Method for Convolutional Neural Networks Compression", 2017.
"""

import math
from collections.abc import Iterable
from dataclasses import replace

from compress.decompose.cp import Cp
from compress.methods.geometry import as_conv, kernel_obstacle, pointwise
from compress.methods.grid import multiples
from compress.methods.method import Method, Ranks, channels
from compress.shape import LayerShape, Stage


def cp_bounds(shape: LayerShape) -> Ranks:
    """The rank at which each place of the kernel has all its terms, above the channel counts."""
    return (math.prod(as_conv(shape).kernel_size) * min(channels(shape)),)


def cp_lattice(shape: LayerShape, step: int) -> Iterable[Ranks]:
    """Multiples of the step up to the bound."""
    return multiples(step, *cp_bounds(shape))


def _layout(shape: LayerShape, ranks: Ranks) -> tuple[Stage, ...]:
    conv = as_conv(shape)
    (rank,) = ranks
    depthwise = replace(conv, in_channels=rank, out_channels=rank, groups=rank, bias=False)
    return (
        Stage("reduce", pointwise(conv.in_channels, rank, axes=conv.axes)),
        Stage("spatial", depthwise),
        Stage("expand", pointwise(rank, conv.out_channels, bias=conv.bias, axes=conv.axes)),
    )


CP3 = Method(
    name="cp3",
    obstacle=kernel_obstacle,
    bounds=cp_bounds,
    lattice=cp_lattice,
    layout=_layout,
    algorithm=Cp,
)
