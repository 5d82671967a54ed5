"""The dense weight that a row of stages computes, and how far it is from another."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from compress.kernels import kernel_of, kernel_size
from compress.methods.groups import groups_of
from compress.shape import ConvShape, FlatShape, GridShape, LayerShape, Stage


def dense_weight(
    shape: LayerShape, stages: Sequence[Stage], factors: Mapping[str, Tensor]
) -> Tensor:
    """The kernel (O, I / G, *kernel) or (O, I) of what the stages stand in for, in float64.

    Args:
        shape: of the dense layer.
        stages: in the order in which they are applied; along each axis at most one of them
            has a kernel longer than 1; the first has the groups of the dense layer, the others
            those or parts of them.
        factors: stage name -> weight of that stage.
    """
    first, *rest = stages
    if isinstance(first.shape, GridShape | FlatShape):
        weight = _after(_identity(shape, next(iter(factors.values()))), first, factors)
    else:
        weight = _kernel(first.name, first.shape, factors)
    for stage in rest:
        weight = _after(weight, stage, factors)
    return weight if isinstance(shape, ConvShape) else weight.flatten(1)


def _kernel(name: str, shape: LayerShape, factors: Mapping[str, Tensor]) -> Tensor:
    return kernel_of(shape, factors[name].detach().double())


def _identity(shape: LayerShape, like: Tensor) -> Tensor:
    """(I, I / G, 1, 1): each group of inputs as it is."""
    inputs = kernel_size(shape)[1]
    axes = shape.axes if isinstance(shape, ConvShape) else 0
    identity = torch.eye(inputs, dtype=torch.float64, device=like.device)
    return identity.repeat(groups_of(shape), 1).reshape(-1, inputs, *[1] * axes)


def _after(weight: Tensor, stage: Stage, factors: Mapping[str, Tensor]) -> Tensor:
    """(C, I, *kernel) of a stage after that of those before it; in slices (C, slices * I, *kernel),
    as the slices are further outputs that a layer treats all alike."""
    shape = stage.shape
    if not isinstance(shape, GridShape | FlatShape):
        return _product(weight, groups_of(shape), _kernel(stage.name, shape, factors))
    if isinstance(shape, GridShape):
        return weight.reshape(shape.out_channels, -1, *weight.shape[2:])
    parts = weight.reshape(shape.groups, shape.channels, shape.slices, -1, *weight.shape[2:])
    return parts.transpose(1, 2).flatten(0, 2)


def _product(weight: Tensor, groups: int, kernel: Tensor) -> Tensor:
    """(O, I, *kernel) of a convolution after that of those before it.

    A stage's group reads the outputs of one group of theirs, so their weights meet group by group.
    """
    later, earlier = (
        each.reshape(groups, len(each) // groups, *each.shape[1:]) for each in (kernel, weight)
    )
    axes = kernel.ndim - 2
    both = "".join(pair for pairs in zip("hwd"[:axes], "klm"[:axes], strict=True) for pair in pairs)
    product = torch.einsum(
        f"goc{'hwd'[:axes]},gci{'klm'[:axes]}->goi{both}", later, earlier
    ).flatten(0, 1)
    sizes = (a * b for a, b in zip(kernel.shape[2:], weight.shape[2:], strict=True))
    return product.reshape(len(product), weight.shape[1], *sizes)


def relative_error(weight: Tensor, approximation: Tensor, metric: Tensor | None) -> float:
    """Squared relative output error, tr(D S Dᵀ) / tr(W S Wᵀ) with D = W - approximation.

    Zero where the layer puts out nothing and neither does its approximation; infinite where
    only the layer puts out nothing.

    Args:
        weight: W, a kernel (O, I / G, *kernel) or (O, I).
        approximation: of the same shape.
        metric: S (D, D), the second moment of the flattened inputs, or (G, D / G, D / G) of each
            group's; None for the identity.
    """
    return OutputError(weight, metric).of(approximation)


class OutputError:
    """Squared relative output errors of what may stand in for one layer.

    Args:
        weight: W, a kernel (O, I / G, *kernel) or (O, I).
        metric: S (D, D), or (G, D / G, D / G), as of `relative_error`.
    """

    def __init__(self, weight: Tensor, metric: Tensor | None) -> None:
        self._weight = weight.detach().double().flatten(1)
        self._metric = None if metric is None else metric.to(self._weight)

    @cached_property
    def energy(self) -> float:
        """tr(W S Wᵀ), found once."""
        return self._energy(self._weight)

    def of(self, approximation: Tensor) -> float:
        """See `relative_error`."""
        difference = self._weight - approximation.detach().double().flatten(1)
        return relative(self._energy(difference), self.energy)

    def _energy(self, weight: Tensor) -> float:
        if self._metric is None:
            return float(weight.square().sum())
        groups = 1 if self._metric.ndim == 2 else len(self._metric)
        weight = weight.reshape(groups, len(weight) // groups, -1)
        return float((weight @ self._metric * weight).sum().clamp_min(0))


def relative(error: float, energy: float) -> float:
    """Their quotient: zero where both are, infinite where only the energy is."""
    if energy == 0:
        return 0.0 if error == 0 else float("inf")
    return error / energy
