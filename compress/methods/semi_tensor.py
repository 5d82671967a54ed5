"""`semi_tensor`: one linear layer for all slices of the inputs, then one for all outputs.

The semi-tensor product (Cheng, Qi and Zhao, "An Introduction to Semi-Tensor Product of Matrices
and Its Applications", 2012) of the second weight with the first, which is smaller than the sizes
ask for. It is `kronecker` with the outputs in one slice, and so fitted.
"""

from collections.abc import Iterable
from itertools import islice

from torch import Tensor

from compress.decompose.folds import divisors
from compress.decompose.kronecker import KroneckerSum
from compress.methods.grid import multiples
from compress.methods.kronecker import KRONECKER
from compress.methods.method import Method, Ranks, channels
from compress.shape import ConvShape, LayerShape, Stage

FOLDS = 2  # numbers of slices to try: each slice more costs MACs


def _obstacle(shape: LayerShape) -> str | None:
    if isinstance(shape, ConvShape):
        return "a convolution has places to fold rather than channels; use spatial_svd"
    if shape.in_features in (1, *islice(divisors(shape.in_features), 1)):
        return (
            f"{shape.in_features} inputs have no divisor, so there are no slices; svd factorises it"
        )
    return None


def _bounds(shape: LayerShape) -> Ranks:
    """(R, T): outputs for each slice, and slices."""
    most, _, slices = KRONECKER.bounds(shape)
    return most, slices


def _lattice(shape: LayerShape, step: int) -> Iterable[Ranks]:
    outputs, inputs = channels(shape)
    dense = outputs * inputs
    return sorted(
        (rank, slices)
        for slices in islice(divisors(inputs), FOLDS)
        for (rank,) in multiples(step, dense // (inputs + slices * outputs))  # fewer MACs
    )


def _layout(shape: LayerShape, ranks: Ranks) -> tuple[Stage, ...]:
    return KRONECKER.layout(shape, _as_kronecker(ranks))


def _as_kronecker(ranks: Ranks) -> Ranks:
    rank, slices = ranks
    return rank, 1, slices


class _SemiTensor:
    """`KroneckerSum` with the outputs in one slice."""

    def __init__(self, weight: Tensor, metric: Tensor | None) -> None:
        self._sum = KroneckerSum(weight, metric)

    def factors(self, ranks: Ranks) -> tuple[Tensor, Tensor]:
        return self._sum.factors(_as_kronecker(ranks))

    def error(self, ranks: Ranks) -> float:
        return self._sum.error(_as_kronecker(ranks))


SEMI_TENSOR = Method(
    name="semi_tensor",
    obstacle=_obstacle,
    bounds=_bounds,
    lattice=_lattice,
    layout=_layout,
    algorithm=_SemiTensor,
    folds=True,
)
