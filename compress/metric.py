"""The norm in which a layer is approximated: what comes in, and what matters of what goes out.

With Sigma the second moment of the inputs and G that of the loss's gradients at the outputs, the
loss rises by about tr(G D Sigma D^T) / 2 for a change D of the weight, were inputs and gradients
independent (Martens and Grosse, "Optimizing Neural Networks with Kronecker-factored Approximate
Curvature", 2015; for convolutions Grosse and Martens, "A Kronecker-factored Approximate Fisher
Matrix for Convolution Layers", 2016).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from compress.coordinates import AXES, CHANNELS, OUTPUTS, Coordinates
from compress.equivalent import OutputError
from compress.errors import CompressError


@dataclass(frozen=True, slots=True, eq=False)
class ModeMoments:
    """A second moment of patches as a product over their modes, where (D, D) would be too large.

    As if what the channels do did not depend on the place. With G groups each has moments of its
    own, side by side along a first axis (G, ...).
    """

    channels: Tensor  # (I, I), or (I,): its diagonal
    axes: tuple[Tensor, ...] = ()  # (k, k) of each axis in space, of trace 1

    @classmethod
    def of(cls, second: Tensor, size: Sequence[int]) -> Self:
        """The product with the partial traces of a whole second moment.

        Args:
            second: (D, D), or (G, D / G, D / G) of each group's.
            size: (I, *kernel), (I / G, *kernel) of groups.
        """
        channels, *axes = (_partial_trace(second, size, mode) for mode in range(len(size)))
        return cls(channels, tuple(map(of_trace_one, axes)))

    def split(self, groups: int) -> "list[ModeMoments]":
        """Those of each group."""
        channels, *axes = (_unbound(moment, groups) for moment in (self.channels, *self.axes))
        return [
            ModeMoments(first, tuple(rest)) for first, *rest in zip(channels, *axes, strict=True)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """The norm tr(G D Sigma D^T) of a change D of a kernel; None stands for the identity.

    With groups each has matrices of its own, side by side along a first axis.
    """

    inputs: Tensor | ModeMoments | None = None  # Sigma (D, D), D = I * kh * kw
    outputs: Tensor | None = None  # G (O, O)

    @staticmethod
    def of(metric: "Metric | Tensor | None") -> "Metric":
        """A metric of the inputs alone where their second moment came."""
        return metric if isinstance(metric, Metric) else Metric(metric)

    def split(self, groups: int) -> "list[Metric]":
        """The metric of each group.

        Raises:
            CompressError: it is one of another number of groups.
        """
        if groups == 1:
            return [self]
        outputs = (None,) * groups if self.outputs is None else _unbound(self.outputs, groups)
        inputs: Sequence[Tensor | ModeMoments | None]
        if isinstance(self.inputs, ModeMoments):
            inputs = self.inputs.split(groups)
        else:
            inputs = (None,) * groups if self.inputs is None else _unbound(self.inputs, groups)
        return [Metric(*each) for each in zip(inputs, outputs, strict=True)]

    @property
    def mode_moments(self) -> dict[int, Tensor]:
        """Mode of the kernel -> its moment: all that becomes the identity in `coordinates`."""
        moments = {} if self.outputs is None else {OUTPUTS: self.outputs}
        if isinstance(self.inputs, ModeMoments):
            moments[CHANNELS] = self.inputs.channels
            moments |= dict(enumerate(self.inputs.axes, AXES))
        return moments

    def coordinates(self, kernel: Tensor) -> tuple[Coordinates, Tensor | None]:
        """Coordinates of a kernel without groups, and the second moment that is its norm there.

        That is Sigma, or None for the plain norm.

        Args:
            kernel: (O, I, *kernel) or (O, I), in the old coordinates.

        Raises:
            CompressError: the metric does not fit the kernel, or is not finite.
        """
        moments = self.mode_moments
        for mode, moment in moments.items():
            _check(moment, mode, kernel)
        within = None if isinstance(self.inputs, ModeMoments) else self.inputs
        return Coordinates({m: moment.to(kernel.device) for m, moment in moments.items()}), within


class MetricError:
    """Squared relative errors, in a metric, of what may stand in for one layer.

    Args:
        kernel: (O, I / G, *kernel) or (O, I).
        metric: of the layer.
        groups: G.

    Raises:
        CompressError: the metric does not fit the kernel, or is not finite.
    """

    def __init__(self, kernel: Tensor, metric: Metric | Tensor | None, groups: int = 1) -> None:
        parts = Metric.of(metric).split(groups)
        pairs = [
            part.coordinates(of_group)
            for part, of_group in zip(parts, kernel.chunk(groups), strict=True)
        ]
        self._coordinates = [coordinates for coordinates, _ in pairs]
        within = [second for _, second in pairs if second is not None]
        self._errors = OutputError(self._entered(kernel), torch.stack(within) if within else None)

    @property
    def energy(self) -> float:
        """The squared norm of the layer itself: what an error of 1 is."""
        return self._errors.energy

    def of(self, approximation: Tensor) -> float:
        """Zero where the layer puts out nothing and neither does its approximation.

        Args:
            approximation: of the kernel's shape.
        """
        return self._errors.of(self._entered(approximation))

    def _entered(self, kernel: Tensor) -> Tensor:
        kernel = kernel.detach().double()
        groups = kernel.chunk(len(self._coordinates))
        return torch.cat([c.enter(g) for c, g in zip(self._coordinates, groups, strict=True)])


def of_trace_one(moment: Tensor) -> Tensor:
    """A moment (..., n, n) over its trace; zeros stay."""
    trace = moment.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    return moment / trace.clamp_min(torch.finfo(moment.dtype).tiny)


def _partial_trace(second: Tensor, size: Sequence[int], mode: int) -> Tensor:
    before, after = math.prod(size[:mode]), math.prod(size[mode + 1 :])
    blocks = second.reshape(*second.shape[:-2], *(before, size[mode], after) * 2)
    return torch.einsum("...asbatb->...st", blocks)


def _unbound(moment: Tensor, groups: int) -> tuple[Tensor, ...]:
    """The matrix, or diagonal, of each group.

    Raises:
        CompressError: there is not one for each.
    """
    if len(moment) != groups or moment.ndim == 1:
        raise CompressError(
            f"a second moment of shape {tuple(moment.shape)} came; one matrix for each of the "
            f"{groups} groups was wanted"
        )
    return moment.unbind()


def _check(moment: Tensor, mode: int, kernel: Tensor) -> None:
    """Refuse what does not fit a mode.

    Raises:
        CompressError: it has another size, or holds NaN or infinite values.
    """
    size = kernel.shape[mode] if mode < kernel.ndim else 0
    if tuple(moment.shape) not in ((size, size), (size,)):
        raise CompressError(
            f"a second moment of shape {tuple(moment.shape)} came for mode {mode} of a kernel "
            f"{tuple(kernel.shape)}; {(size, size)} was wanted"
        )
    if not bool(moment.isfinite().all()):
        raise CompressError(f"the second moment of mode {mode} holds NaN or infinite values")
