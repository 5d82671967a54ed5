"""Coordinates of a kernel in which a norm along its modes becomes the plain one.

A norm that is a product over modes, outputs, channels and axes in space, is the plain norm of the
kernel times a root along each. So any decomposition can be made there and taken back: each mode
is carried by one stage alone.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from compress.decompose.linalg import RIDGE, cholesky
from compress.kernels import kernel_size
from compress.shape import LayerShape

OUTPUTS, CHANNELS, AXES = 0, 1, 2  # the modes of a kernel; AXES is the first in space


class Coordinates:
    """What a kernel (O, I, *kernel) is multiplied with along some of its modes.

    Args:
        moments: mode -> M (n, n), positive semidefinite, or (n,), the diagonal of one. The plain
            norm in the new coordinates is the product of these norms in the old ones. Where M is
            zero nothing is known of the mode, and it stays as it is.
    """

    def __init__(self, moments: Mapping[int, Tensor]) -> None:
        self._roots = {
            mode: _root(moment) for mode, moment in moments.items() if bool(moment.any())
        }

    def enter(self, kernel: Tensor) -> Tensor:
        """The kernel in these coordinates, in float64; the very same where there are none."""
        for mode, root in self._roots.items():
            rows = kernel.double().movedim(mode, -1)
            rows = rows * root if root.ndim == 1 else rows @ root
            kernel = rows.movedim(-1, mode)
        return kernel

    def leave(self, shapes: Sequence[LayerShape], factors: Sequence[Tensor]) -> list[Tensor]:
        """The kernels of stages whose product is in these coordinates, for the old ones.

        Args:
            shapes: of the stages of a layer without groups; along each axis at most one of them
                has a kernel longer than 1.
            factors: their kernels, in any shape that has as many values.

        Returns:
            (O, I / G, *kernel) of each stage.
        """
        kernels = [
            factor.reshape(kernel_size(shape))
            for shape, factor in zip(shapes, factors, strict=True)
        ]
        for mode, root in self._roots.items():
            carrier = _carrier(mode, kernels)
            rows = kernels[carrier].movedim(mode, -1)
            kernels[carrier] = _divided(rows, root).movedim(-1, mode)
        return kernels


def _root(moment: Tensor) -> Tensor:
    """L (n, n), lower triangular, with L L^T = M, the least variances raised; or (n,)."""
    if moment.ndim == 1:
        return (moment + RIDGE * moment.mean()).sqrt()
    return cholesky(moment, RIDGE)[0]


def _divided(rows: Tensor, root: Tensor) -> Tensor:
    if root.ndim == 1:
        return rows / root
    return torch.linalg.solve_triangular(
        root, rows.flatten(0, -2), upper=False, left=False
    ).reshape(rows.shape)


def _carrier(mode: int, kernels: Sequence[Tensor]) -> int:
    """The stage with this mode of the whole: channels are in the first, outputs in the last."""
    if mode == OUTPUTS:
        return len(kernels) - 1
    if mode == CHANNELS:
        return 0
    return max(range(len(kernels)), key=lambda i: kernels[i].shape[mode])
