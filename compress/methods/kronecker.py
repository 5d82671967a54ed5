"""`kronecker`: one layer for all slices of the inputs, then a 1x1 for all slices of the outputs.

Hameed et al., "Convolutional Neural Network Compression through Generalized Kronecker Product
Decomposition", AAAI 2022: the weight is a sum of Kronecker products. Of a single slice each it is
`svd`; with more slices a term costs as many parameters and as many times the MACs.
"""

import math
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice

from compress.decompose.folds import divisors, per_slice
from compress.decompose.kronecker import KroneckerSum, kronecker_limits
from compress.kernels import kernel_size
from compress.methods.folding import sliced
from compress.methods.geometry import pointwise
from compress.methods.method import Method, Ranks, channels
from compress.shape import LayerShape, LinearShape, Stage

FOLDS = 2  # numbers of slices to try: each slice more costs MACs, and saves nothing


def _obstacle(shape: LayerShape) -> str | None:
    outputs, inputs = channels(shape)
    if math.gcd(outputs, inputs) == 1:
        return (
            f"{outputs} outputs and {inputs} inputs have no divisor in common, so there are no "
            "slices; svd factorises it"
        )
    return None


def _bounds(shape: LayerShape) -> Ranks:
    """(K, S_out, S_in)."""
    return kronecker_limits(kernel_size(shape))


def _lattice(shape: LayerShape, step: int) -> Iterable[Ranks]:
    """(K, S, S) for the smallest S; the layers of all terms together are multiples of the step."""
    outputs, *inputs = kernel_size(shape)
    held = math.prod(inputs)
    found = []
    for slices in islice(divisors(math.gcd(outputs, inputs[0])), FOLDS):
        if outputs // slices % step == 0:
            multiple = step // math.gcd(step, slices)
            paying = outputs * held // (slices * (outputs + held))  # fewer MACs
            found += [(terms, slices, slices) for terms in range(multiple, paying + 1, multiple)]
    return sorted(found)


def _layout(shape: LayerShape, ranks: Ranks) -> tuple[Stage, ...]:
    terms, slices_out, slices_in = ranks
    outputs, inputs = channels(shape)
    width_in, width_out = terms * slices_out, terms * slices_in
    per_in, per_out = per_slice(inputs, slices_in), per_slice(outputs, slices_out)
    inner: LayerShape
    outer: LayerShape
    if isinstance(shape, LinearShape):
        inner = replace(shape, in_features=per_in, out_features=width_in, bias=False)
        outer = replace(shape, in_features=width_out, out_features=per_out)
    else:
        inner = replace(shape, in_channels=per_in, out_channels=width_in, bias=False)
        outer = pointwise(width_out, per_out, bias=shape.bias, axes=shape.axes)
    return (*sliced("reduce", inner, slices_in), *sliced("expand", outer, slices_out))


KRONECKER = Method(
    name="kronecker",
    obstacle=_obstacle,
    bounds=_bounds,
    lattice=_lattice,
    layout=_layout,
    algorithm=KroneckerSum,
    folds=True,
)
