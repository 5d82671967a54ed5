"""`tucker2`: a 1x1 convolution, one with the kernel between fewer channels, and a 1x1.

Kim et al., "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile
Applications", ICLR 2016.
"""

from collections.abc import Iterable
from dataclasses import replace

from compress.decompose.tucker import Tucker2
from compress.methods.geometry import as_conv, kernel_obstacle, pointwise
from compress.methods.grid import proportional
from compress.methods.method import Method, Ranks, channels
from compress.shape import LayerShape, Stage


def _lattice(shape: LayerShape, step: int) -> Iterable[Ranks]:
    """(R_out, R_in) in proportion to the channels."""
    return proportional(step, channels(shape))


def _layout(shape: LayerShape, ranks: Ranks) -> tuple[Stage, ...]:
    conv = as_conv(shape)
    rank_out, rank_in = ranks
    core = replace(conv, in_channels=rank_in, out_channels=rank_out, bias=False)
    return (
        Stage("reduce", pointwise(conv.in_channels, rank_in, axes=conv.axes)),
        Stage("core", core),
        Stage("expand", pointwise(rank_out, conv.out_channels, bias=conv.bias, axes=conv.axes)),
    )


TUCKER2 = Method(
    name="tucker2",
    obstacle=kernel_obstacle,
    bounds=channels,
    lattice=_lattice,
    layout=_layout,
    algorithm=Tucker2,
)
