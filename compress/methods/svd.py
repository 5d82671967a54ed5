"""`svd`: a convolution with fewer outputs, then a 1x1 convolution; or two linear layers.

Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification and
Detection", 2015 (their linear case).
"""

import math
from collections.abc import Iterable
from dataclasses import replace

from compress.decompose.svd import ChannelSvd
from compress.kernels import kernel_size
from compress.methods.geometry import pointwise
from compress.methods.grid import multiples
from compress.methods.method import Method, Ranks
from compress.shape import LayerShape, LinearShape, Stage


def _obstacle(_shape: LayerShape) -> None:
    """Every layer is a matrix from patches to outputs."""


def _bounds(shape: LayerShape) -> Ranks:
    outputs, *inputs = kernel_size(shape)
    return (min(outputs, math.prod(inputs)),)


def _lattice(shape: LayerShape, step: int) -> Iterable[Ranks]:
    return multiples(step, *_bounds(shape))


def _layout(shape: LayerShape, ranks: Ranks) -> tuple[Stage, ...]:
    (rank,) = ranks
    if isinstance(shape, LinearShape):
        return (
            Stage("reduce", replace(shape, out_features=rank, bias=False)),
            Stage("expand", replace(shape, in_features=rank)),
        )
    return (
        Stage("reduce", replace(shape, out_channels=rank, bias=False)),
        Stage("expand", pointwise(rank, shape.out_channels, bias=shape.bias, axes=shape.axes)),
    )


SVD = Method(
    name="svd",
    obstacle=_obstacle,
    bounds=_bounds,
    lattice=_lattice,
    layout=_layout,
    algorithm=ChannelSvd,
)
