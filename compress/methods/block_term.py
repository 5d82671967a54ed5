"""`block_term`: a 1x1 convolution, a grouped one with the kernel, and a 1x1.

De Lathauwer, "Decompositions of a Higher-Order Tensor in Block Terms, Part II: Definitions and
Uniqueness", 2008: a Tucker-2 whose core is block diagonal, which is a grouped convolution. A
single term is `tucker2`, terms of rank one are `cp3`.
"""

from collections.abc import Iterable
from dataclasses import replace

from compress.decompose.block_term import BlockTerm
from compress.methods.geometry import as_conv, kernel_obstacle, pointwise
from compress.methods.grid import proportional
from compress.methods.method import Method, Ranks, channels
from compress.shape import LayerShape, Stage

# Of the numbers tried (2, 4, 8), at equal MACs 4 left the least error in the layers of digits_cnn.
TERMS = 4


def _bounds(shape: LayerShape) -> Ranks:
    """(O, I), and as many terms: with more, a term would be one of CP."""
    return *channels(shape), min(channels(shape))


def _lattice(shape: LayerShape, step: int) -> Iterable[Ranks]:
    """(R_out, R_in, G): the ranks of a term in proportion to the channels, in half steps.

    The terms side by side then are multiples of the step.
    """
    if min(channels(shape)) < TERMS:
        return []
    return [(*ranks, TERMS) for ranks in proportional(max(1, step // 2), channels(shape))]


def _layout(shape: LayerShape, ranks: Ranks) -> tuple[Stage, ...]:
    conv = as_conv(shape)
    rank_out, rank_in, terms = ranks
    width_in, width_out = terms * rank_in, terms * rank_out
    core = replace(conv, in_channels=width_in, out_channels=width_out, groups=terms, bias=False)
    return (
        Stage("reduce", pointwise(conv.in_channels, width_in, axes=conv.axes)),
        Stage("core", core),
        Stage("expand", pointwise(width_out, conv.out_channels, bias=conv.bias, axes=conv.axes)),
    )


BLOCK_TERM = Method(
    name="block_term",
    obstacle=kernel_obstacle,
    bounds=_bounds,
    lattice=_lattice,
    layout=_layout,
    algorithm=BlockTerm,
)
