"""The dense weight that a row of stages computes, and how far it is from another."""

from collections.abc import Mapping, Sequence

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
        groups = stage.shape.groups if isinstance(stage.shape, ConvShape) else 1
        kernel = _grouped(_kernel(factors[stage.name]), groups)
        product = torch.einsum("gochw,gcikl->goihkwl", kernel, _grouped(weight, groups))
        weight = product.flatten(0, 1).flatten(4).flatten(2, 3)
    return weight if isinstance(shape, ConvShape) else weight.flatten(1)


def _grouped(weight: Tensor, groups: int) -> Tensor:
    """(channels, ...) as (groups, channels of each, ...)."""
    return weight.reshape(groups, -1, *weight.shape[1:])


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
    exact = weight.detach().double().flatten(1)
    error = _output_energy(exact - approximation.detach().double().flatten(1), metric)
    energy = _output_energy(exact, metric)
    if energy == 0:
        return 0.0 if error == 0 else float("inf")
    return error / energy


def _output_energy(weight: Tensor, metric: Tensor | None) -> float:
    outputs = weight if metric is None else weight @ metric.to(weight)
    return float((outputs * weight).sum().clamp_min(0))
