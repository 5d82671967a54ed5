"""What a method is: how it lays out stages in place of a layer, and how it fills them."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from compress.coordinates import Coordinates
from compress.decompose.linalg import check_ranks
from compress.errors import UnsupportedLayerError, WeightsError
from compress.kernels import kernel_of, weight_of, weight_size
from compress.methods.equalisation import equalised
from compress.methods.grid import cheaper_ranks, thinned
from compress.methods.groups import group_shape, groups_of, side_by_side
from compress.metric import Metric
from compress.shape import ConvShape, LayerShape, Stage, weighted

Ranks = tuple[int, ...]

# Ranks are multiples of these: convolution routines work in blocks of as many channels.
STEP = 16
NARROW_STEP = 8
SMALLEST_STEP = 4
NARROW = 64  # channels

NEVER_PAYS = "no rank that is a multiple of 4 has fewer parameters and MACs than the dense layer"
GROUPS_NEVER_PAY = (
    "no rank that gives the {} groups together a multiple of 4 channels has fewer parameters and "
    "MACs than the dense layer"
)


class Algorithm(Protocol):
    """One weight decomposed: what all ranks share is computed once."""

    def factors(self, ranks: Ranks) -> tuple[Tensor, ...]:
        """The weights of the stages in their order, in float64."""


@runtime_checkable
class KnowsError(Protocol):
    """An algorithm to which the error of a fit is known once it has its factors."""

    def error(self, ranks: Ranks) -> float:
        """Squared relative output error of the factors, in the norm of the metric."""


class Decomposition(Protocol):
    """The factors of one layer at any ranks."""

    def factors(self, ranks: Ranks) -> dict[str, Tensor]:
        """Stage name -> its weight, in the dtype of the dense weight.

        Raises:
            RankError: a rank lies outside what the weight allows.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One way to put plain layers in place of one; stateless.

    The fields are what a method is made of, for a layer without groups; the callers' questions are
    the methods below. They answer for grouped convolutions too, each of whose groups is
    factorised by itself, at the same ranks.
    """

    name: str
    obstacle: Callable[[LayerShape], str | None]  # why the method cannot represent the layer
    bounds: Callable[[LayerShape], Ranks]
    lattice: Callable[[LayerShape, int], Iterable[Ranks]]  # ranks of one step, ascending
    layout: Callable[[LayerShape, Ranks], tuple[Stage, ...]]
    algorithm: Callable[[Tensor, Tensor | None], Algorithm]
    folds: bool = False
    """Whether stages serve slices of the features. None of them then carries a whole mode, and of
    a metric nothing counts but a whole second moment of the inputs."""

    def refusal(self, shape: LayerShape) -> str | None:
        """Why the method cannot represent a layer of this shape, or never pays; None if it may."""
        if reason := self.obstacle(group_shape(shape)):
            return reason
        if self.grid(shape):
            return None
        groups = groups_of(shape)
        return NEVER_PAYS if groups == 1 else GROUPS_NEVER_PAY.format(groups)

    def limits(self, shape: LayerShape) -> Ranks:
        """The greatest value of each free rank, of one group where there are groups.

        Raises:
            UnsupportedLayerError: the method cannot represent the layer.
        """
        self._check(shape)
        return self.bounds(group_shape(shape))

    def grid(self, shape: LayerShape) -> list[Ranks]:
        """Ranks worth trying, ascending: few, and each cheaper than the dense layer.

        Multiples of 16, of 8 where the narrower channel count is below 64, and of 4 where
        none of those is cheaper: off this grid convolution routines lose their speed. So are
        the ranks of all groups together. Empty for a layer that the method cannot represent.
        """
        group = group_shape(shape)
        if self.obstacle(group) is not None:
            return []
        narrower = min(channels(shape))
        for step in (STEP if narrower >= NARROW else NARROW_STEP, SMALLEST_STEP):
            lattice = self.lattice(group, step // math.gcd(step, groups_of(shape)))
            if ranks := cheaper_ranks(shape, lattice, self._side_by_side):
                return thinned(ranks)
        return []

    def stages(self, shape: LayerShape, ranks: Ranks) -> tuple[Stage, ...]:
        """The plain layers that stand in for one of `shape`; only the last has the bias.

        Raises:
            UnsupportedLayerError: the method cannot represent the layer.
            RankError: a rank lies outside 1 to its limit, or divides nothing where it must.
        """
        check_ranks(ranks, self.limits(shape))
        return self._side_by_side(shape, ranks)

    def decompose(
        self, shape: LayerShape, weight: Tensor, metric: Metric | Tensor | None
    ) -> "StagedFactors":
        """The weight of a layer made ready for any ranks.

        Args:
            shape: of the layer.
            weight: as torch stores it: (O, I / G, *kernel), (I, O / G, *kernel) of a transposed
                convolution, or (O, I).
            metric: a second moment (D, D) of the flattened inputs of the layer, D = I * kh * kw, or
                (G, D / G, D / G) of each group's, or any other norm; None decomposes in the plain
                one.

        Raises:
            UnsupportedLayerError: the method cannot represent the layer.
            WeightsError: the weight is not of this shape, or not finite.
            CompressError: the metric does not fit the weight, or is not finite.
        """
        self._check(shape)
        if tuple(weight.shape) != weight_size(shape):
            raise WeightsError(
                f"a weight of shape {tuple(weight.shape)} came; {weight_size(shape)} was wanted "
                f"for {shape}"
            )
        if self.folds:
            inputs = Metric.of(metric).inputs
            metric = inputs if isinstance(inputs, Tensor) else None
        groups = groups_of(shape)
        parts = zip(
            kernel_of(shape, weight).chunk(groups), Metric.of(metric).split(groups), strict=True
        )
        coordinates, algorithms = [], []
        for kernel, part in parts:
            simpler, moment = part.coordinates(kernel)
            coordinates.append(simpler)
            algorithms.append(self.algorithm(simpler.enter(kernel), moment))
        return StagedFactors(self, shape, weight.dtype, metric, coordinates, algorithms)

    def _side_by_side(self, shape: LayerShape, ranks: Ranks) -> tuple[Stage, ...]:
        return side_by_side(self.layout(group_shape(shape), ranks), groups_of(shape))

    def _check(self, shape: LayerShape) -> None:
        if reason := self.obstacle(group_shape(shape)):
            raise UnsupportedLayerError(f"{self.name} cannot factorise {shape}: {reason}")


@dataclass(frozen=True, slots=True)
class StagedFactors:
    """The factors of one layer by one method at any ranks, and how far off they are."""

    method: Method
    shape: LayerShape
    dtype: torch.dtype
    metric: Metric | Tensor | None
    coordinates: Sequence[Coordinates]  # that the kernel of each group is decomposed in
    algorithms: Sequence[Algorithm]  # one for each group

    def factors(self, ranks: Ranks) -> dict[str, Tensor]:
        """See `Decomposition`."""
        stages = self.method.stages(self.shape, ranks)
        one = [shape for _, shape in weighted(self.method.layout(group_shape(self.shape), ranks))]
        groups = [
            equalised(
                one, coordinates.leave(one, algorithm.factors(ranks)), parted=self.method.folds
            )
            for coordinates, algorithm in zip(self.coordinates, self.algorithms, strict=True)
        ]
        return {
            name: _joined(shape, kernels).to(self.dtype, copy=True)
            for (name, shape), *kernels in zip(weighted(stages), *groups, strict=True)
        }

    def error(self, ranks: Ranks) -> float | None:
        """Squared relative output error of the factors, in the norm of the metric, if known.

        Before the factors are rounded to the dtype of the weight; next to nothing after `factors`
        of the same ranks. None where there are groups, or the algorithm does not know it: then
        `compress.metric` finds it from the factors.

        Raises:
            RankError: a rank lies outside what the weight allows.
        """
        first, *others = self.algorithms
        return first.error(ranks) if not others and isinstance(first, KnowsError) else None


def _joined(shape: LayerShape, kernels: Sequence[Tensor]) -> Tensor:
    """The weight of a stage from its kernel in each group."""
    return weight_of(shape, kernels[0] if len(kernels) == 1 else torch.cat([*kernels]))


def channels(shape: LayerShape) -> tuple[int, int]:
    """(O, I)."""
    if isinstance(shape, ConvShape):
        return shape.out_channels, shape.in_channels
    return shape.out_features, shape.in_features
