"""`tensor_train`: a 1x1 convolution, a kh x 1, a 1 x kw, and a 1x1.

The train of Oseledets, "Tensor-Train Decomposition", 2011, over inputs, rows, columns and
outputs of the kernel, so that each part is a plain layer; Garipov et al., "Ultimate
tensorization: compressing convolutional and FC layers alike", 2016, fold the channels as well,
which plain layers cannot show. Of three axes in space the first is split from the two others.
"""

import math
from collections.abc import Iterable
from dataclasses import replace

from torch import Tensor

from compress.decompose.tensor_train import TensorTrain, train_limits
from compress.methods.geometry import as_conv, horizontal, kernel_obstacle, pointwise, vertical
from compress.methods.grid import proportional, rounded
from compress.methods.method import Method, Ranks, channels
from compress.shape import ConvShape, LayerShape, Stage


def _obstacle(shape: LayerShape) -> str | None:
    if not isinstance(shape, ConvShape):
        return "a linear layer has two sides, and a train of two is an svd: svd factorises it"
    if (reason := kernel_obstacle(shape)) is not None:
        return reason
    if 1 in _places(shape):
        return "a kernel of one row or column would get the three stages of tucker2; use tucker2"
    return None


def _places(shape: LayerShape) -> tuple[int, int]:
    """Places of the kernel along the first axis, and along all others: (kh, kw) of two."""
    first, *others = as_conv(shape).kernel_size
    return first, math.prod(others)


def _bounds(shape: LayerShape) -> Ranks:
    return train_limits(*channels(shape), *_places(shape))


def _lattice(shape: LayerShape, step: int) -> Iterable[Ranks]:
    """The outer two in proportion to the channels, the middle one their geometric mean.

    Of equal MACs, this was nearest to the error of wider or narrower middles.
    """
    height, width = _places(shape)
    for rank_out, rank_in in proportional(step, channels(shape)):
        usable = min(rank_in * height, rank_out * width)
        yield rank_in, rounded(math.sqrt(rank_in * rank_out), step, usable), rank_out


def _layout(shape: LayerShape, ranks: Ranks) -> tuple[Stage, ...]:
    conv = as_conv(shape)
    rank_in, rank, rank_out = ranks
    middle = replace(conv, bias=False)
    return (
        Stage("reduce", pointwise(conv.in_channels, rank_in, axes=conv.axes)),
        Stage("vertical", replace(vertical(middle), in_channels=rank_in, out_channels=rank)),
        Stage("horizontal", replace(horizontal(middle), in_channels=rank, out_channels=rank_out)),
        Stage("expand", pointwise(rank_out, conv.out_channels, bias=conv.bias, axes=conv.axes)),
    )


def _algorithm(weight: Tensor, metric: Tensor | None) -> TensorTrain:
    return TensorTrain(weight.flatten(3), metric)


TENSOR_TRAIN = Method(
    name="tensor_train",
    obstacle=_obstacle,
    bounds=_bounds,
    lattice=_lattice,
    layout=_layout,
    algorithm=_algorithm,
)
