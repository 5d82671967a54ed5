"""The dense weight that a row of stages computes, and how far it is from another."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from compress.shape import ConvShape, LayerShape, Stage


def dense_weight(
    shape: LayerShape, stages: Sequence[Stage], factors: Mapping[str, Tensor]
) -> Tensor:
    """The weight (O, I, kh, kw) or (O, I) of the layer that the stages stand in for, in float64.

    Args:
        shape: of the dense layer.
        stages: in the order in which they are applied; along each axis at most one of them
            has a kernel longer than 1.
        factors: stage name -> weight of that stage.
    """
    first, *rest = stages
    weight = _kernel(factors[first.name])
    for stage in rest:
        depthwise = isinstance(stage.shape, ConvShape) and stage.shape.groups > 1
        equation = "chw,cikl->cihkwl" if depthwise else "ochw,cikl->oihkwl"
        kernel = _kernel(factors[stage.name])
        product = torch.einsum(equation, kernel.squeeze(1) if depthwise else kernel, weight)
        weight = product.flatten(4).flatten(2, 3)
    return weight if isinstance(shape, ConvShape) else weight.flatten(1)


def _kernel(weight: Tensor) -> Tensor:
    """A linear weight (O, I) is a 1x1 kernel."""
    exact = weight.detach().double()
    return exact if exact.ndim == 4 else exact[:, :, None, None]


def relative_error(weight: Tensor, approximation: Tensor, metric: Tensor | None) -> float:
    """Squared relative output error, tr(D S Dᵀ) / tr(W S Wᵀ) with D = W - approximation.

    Zero where the layer puts out nothing and neither does its approximation; infinite where
    only the layer puts out nothing.

    Args:
        weight: W (O, I, kh, kw) or (O, I).
        approximation: of the same shape.
        metric: S (D, D), the second moment of the flattened inputs; None for the identity.
    """
    return OutputError(weight, metric).of(approximation)


class OutputError:
    """Squared relative output errors of what may stand in for one layer.

    Args:
        weight: W (O, I, kh, kw) or (O, I).
        metric: S (D, D), the second moment of the flattened inputs; None for the identity.
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
        outputs = weight if self._metric is None else weight @ self._metric
        return float((outputs * weight).sum().clamp_min(0))


def relative(error: float, energy: float) -> float:
    """Their quotient: zero where both are, infinite where only the energy is."""
    if energy == 0:
        return 0.0 if error == 0 else float("inf")
    return error / energy
