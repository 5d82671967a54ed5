"""`cp4`: a 1x1 convolution, a depthwise kh x 1, a depthwise 1 x kw, and a 1x1.

Of three axes in space each gets a depthwise convolution.

Lebedev et al., "Speeding-up Convolutional Neural Networks Using Fine-tuned CP-Decomposition",
ICLR 2015.
"""

from dataclasses import replace
from functools import partial

from compress.decompose.cp import Cp
from compress.methods.cp3 import cp_bounds, cp_lattice
from compress.methods.geometry import along, as_conv, kernel_obstacle, pointwise
from compress.methods.method import Method, Ranks
from compress.shape import LayerShape, Stage


def _obstacle(shape: LayerShape) -> str | None:
    if (reason := kernel_obstacle(shape)) is not None:
        return reason
    conv = as_conv(shape)
    if conv.axes == 1 or 1 in conv.kernel_size:
        return "a kernel of one row or column has nothing to split along it; use cp3"
    return None


def _layout(shape: LayerShape, ranks: Ranks) -> tuple[Stage, ...]:
    conv = as_conv(shape)
    (rank,) = ranks
    names = ("depth", "vertical", "horizontal")[-conv.axes :]
    depthwise = replace(conv, in_channels=rank, out_channels=rank, groups=rank, bias=False)
    return (
        Stage("reduce", pointwise(conv.in_channels, rank, axes=conv.axes)),
        *(Stage(name, along(depthwise, axis)) for axis, name in enumerate(names)),
        Stage("expand", pointwise(rank, conv.out_channels, bias=conv.bias, axes=conv.axes)),
    )


CP4 = Method(
    name="cp4",
    obstacle=_obstacle,
    bounds=cp_bounds,
    lattice=cp_lattice,
    layout=_layout,
    algorithm=partial(Cp, separable=True),
)
