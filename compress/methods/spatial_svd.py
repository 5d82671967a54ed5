"""`spatial_svd`: a kh x 1 convolution, then a 1 x kw convolution.

Jaderberg et al., "Speeding up Convolutional Neural Networks with Low Rank Expansions", 2014. Of
three axes in space the first is split from the two others, as time from space in Tran et al., "A
Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018.
"""

import math
from collections.abc import Iterable
from dataclasses import replace

from torch import Tensor

from compress.decompose.spatial_svd import SpatialSvd
from compress.methods.geometry import as_conv, horizontal, kernel_obstacle, vertical
from compress.methods.grid import multiples
from compress.methods.method import Method, Ranks
from compress.shape import LayerShape, Stage


def _obstacle(shape: LayerShape) -> str | None:
    if (reason := kernel_obstacle(shape)) is not None:
        return reason
    if math.prod(as_conv(shape).kernel_size[1:]) == 1:
        return "a kernel of width 1 would get the two stages of svd, which factorises it"
    return None


def _bounds(shape: LayerShape) -> Ranks:
    conv = as_conv(shape)
    height, *others = conv.kernel_size
    return (min(conv.in_channels * height, conv.out_channels * math.prod(others)),)


def _lattice(shape: LayerShape, step: int) -> Iterable[Ranks]:
    return multiples(step, *_bounds(shape))


def _layout(shape: LayerShape, ranks: Ranks) -> tuple[Stage, ...]:
    conv = as_conv(shape)
    (rank,) = ranks
    return (
        Stage("vertical", replace(vertical(conv), out_channels=rank, bias=False)),
        Stage("horizontal", replace(horizontal(conv), in_channels=rank)),
    )


def _algorithm(weight: Tensor, metric: Tensor | None) -> SpatialSvd:
    return SpatialSvd(weight.flatten(3), metric)


SPATIAL_SVD = Method(
    name="spatial_svd",
    obstacle=_obstacle,
    bounds=_bounds,
    lattice=_lattice,
    layout=_layout,
    algorithm=_algorithm,
)
