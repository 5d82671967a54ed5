"""`hierarchical_tucker`: two linear layers along the modes of the folded inputs, two between, and
two along those of the outputs.

Hackbusch and Kühn, "A New Scheme for the Tensor Representation", 2009. For large layers: what the
layers along the modes take off both sides lets the two between have a higher rank.
"""

import math
from collections.abc import Iterable

from compress.decompose.folds import balanced
from compress.decompose.hierarchical_tucker import HierarchicalTucker, tree_limits
from compress.methods.folding import sliced
from compress.methods.grid import rounded
from compress.methods.method import Method, Ranks, channels
from compress.shape import ConvShape, LayerShape, LinearShape, Stage

SHARES = (0.5, 0.75)  # of each mode, that the ranks along it keep


def _obstacle(shape: LayerShape) -> str | None:
    if isinstance(shape, ConvShape):
        return "a convolution has modes of its own, channels and places; use tensor_train"
    for side, features in zip(("outputs", "inputs"), channels(shape), strict=True):
        if 1 in balanced(features):
            return f"{features} {side} cannot be folded into two modes; svd factorises it"
    return None


def _bounds(shape: LayerShape) -> Ranks:
    """(R, S_1, S_2, R_1, R_2)."""
    return tree_limits(*channels(shape))


def _lattice(shape: LayerShape, step: int) -> Iterable[Ranks]:
    """The ranks of the modes in proportion to their sizes, any root that they can fill."""
    _, *modes = _bounds(shape)
    dense = math.prod(modes)
    leaf = max(1, step // 4)  # modes are short; two of them together are multiples of the step
    if min(modes) < leaf:
        return []
    leaves = {tuple(rounded(share * mode, leaf, mode) for mode in modes) for share in SHARES}
    found = []
    for out_1, out_2, in_1, in_2 in leaves:
        within_out, within_in = out_1 * out_2, in_1 * in_2
        paying = dense // (within_out + within_in)  # of the two layers between
        roots = range(step, min(paying, within_out, within_in) + 1, step)
        found += [(root, out_1, out_2, in_1, in_2) for root in roots]
    return sorted(found)


def _layout(shape: LayerShape, ranks: Ranks) -> tuple[Stage, ...]:
    outputs, inputs = channels(shape)
    (out_1, out_2), (in_1, in_2) = balanced(outputs), balanced(inputs)
    root, rank_out_1, rank_out_2, rank_in_1, rank_in_2 = ranks
    return (
        *sliced("inputs_1", _linear(in_1, rank_in_1), in_2),
        *sliced("inputs_2", _linear(in_2, rank_in_2), rank_in_1),
        Stage("reduce", _linear(rank_in_1 * rank_in_2, root)),
        Stage("expand", _linear(root, rank_out_1 * rank_out_2)),
        *sliced("outputs_1", _linear(rank_out_1, out_1), rank_out_2),
        *sliced("outputs_2", _linear(rank_out_2, out_2, bias=shape.bias), out_1),
    )


def _linear(in_features: int, out_features: int, *, bias: bool = False) -> LinearShape:
    return LinearShape(in_features=in_features, out_features=out_features, bias=bias)


HIERARCHICAL_TUCKER = Method(
    name="hierarchical_tucker",
    obstacle=_obstacle,
    bounds=_bounds,
    lattice=_lattice,
    layout=_layout,
    algorithm=HierarchicalTucker,
    folds=True,
)
