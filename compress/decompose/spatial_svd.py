"""Spatial SVD: a kernel as a vertical one, kh x 1, followed by a horizontal one, 1 x kw.

Jaderberg et al., "Speeding up Convolutional Neural Networks with Low Rank Expansions", BMVC
2014 (their scheme 2). The plain optimum is a truncated SVD. In the norm of the data there is
no closed form: alternating least squares improves on the better of two truncated SVDs.

Letters: j = (i, h), the rows of a patch; w and v, its columns; r and s, ranks.
"""

from functools import cached_property

import torch
from torch import Tensor

from compress.decompose.linalg import (
    check_ranks,
    conjugate_gradient,
    exact,
    exact_metric,
    kronecker_factors,
    regression,
    roots,
)
from compress.decompose.svd import output_basis

SWEEPS = 2
STEPS = 2  # of conjugate gradients, in each sweep

Kernels = tuple[Tensor, Tensor]  # vertical (j, r) and horizontal (o, r, w)


class SpatialSvd:
    """Every rank of one kernel; the eigendecompositions are shared.

    Args:
        weight: (O, I, kh, kw).
        metric: second moment (D, D) of the patches, D = I * kh * kw, or None.

    Raises:
        CompressError: the weight or the metric is not finite, or they do not fit.
    """

    def __init__(self, weight: Tensor, metric: Tensor | None = None) -> None:
        outputs, inputs, height, width = weight.shape
        self._shape = (outputs, inputs * height, width)
        self._inputs = (inputs, height)
        self._kernel = exact(weight).reshape(self._shape)
        self._metric = exact_metric(metric, weight)

    def factors(self, ranks: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Vertical (R, I, kh) and horizontal (O, R, kw) kernels.

        In the norm of the metric never worse than the plain truncated SVD.

        Raises:
            RankError: the rank is not between 1 and min(I * kh, O * kw).
        """
        outputs, rows, width = self._shape
        check_ranks(ranks, (min(rows, outputs * width),))
        (rank,) = ranks
        plain = self._metric is None
        vertical, horizontal = _cut(self._plain, rank) if plain else self._fitted(rank)
        return vertical.T.reshape(rank, *self._inputs), horizontal

    @cached_property
    def _plain(self) -> Kernels:
        """All terms, by falling energy."""
        outputs, rows, width = self._shape
        basis = output_basis(self._kernel.transpose(0, 1).reshape(rows, -1))
        return basis.out_factor, basis.in_factor.reshape(-1, outputs, width).transpose(0, 1)

    @cached_property
    def _whitened(self) -> Kernels:
        """The same, optimal were the metric a Kronecker product over rows and columns."""
        outputs, rows, width = self._shape
        root, inverse = roots(self._traces[0])
        root_across, inverse_across = roots(self._traces[1])
        white = torch.einsum("jk,okv,vw->jow", root, self._kernel, root_across)
        basis = output_basis(white.reshape(rows, -1))
        horizontal = basis.in_factor.reshape(-1, outputs, width).transpose(0, 1)
        return inverse @ basis.out_factor, horizontal @ inverse_across

    @cached_property
    def _traces(self) -> tuple[Tensor, Tensor]:
        _, rows, width = self._shape
        assert self._metric is not None
        return kronecker_factors(self._metric, rows, width)

    @cached_property
    def _moments(self) -> Tensor:
        """The metric as (w, v, j, k), so that products over rows are matrix products."""
        _, rows, width = self._shape
        assert self._metric is not None
        return self._metric.reshape(rows, width, rows, width).permute(1, 3, 0, 2).contiguous()

    @cached_property
    def _cross(self) -> Tensor:
        """The kernel times the metric, (o, j, w)."""
        assert self._metric is not None
        return (self._kernel.flatten(1) @ self._metric).reshape(self._shape)

    def _fitted(self, rank: int) -> Kernels:
        starts = (_cut(self._plain, rank), _cut(self._whitened, rank))
        kernels, _ = min((self._fit_horizontal(start) for start in starts), key=lambda fit: fit[1])
        for _ in range(SWEEPS):
            kernels, _ = self._fit_horizontal(self._fit_vertical(kernels))
        return kernels

    def _fit_horizontal(self, kernels: Kernels) -> tuple[Kernels, float]:
        """The best horizontal kernel for the vertical one, and the loss up to a constant."""
        outputs, _, width = self._shape
        vertical, triangle = torch.linalg.qr(kernels[0])
        start = torch.einsum("rs,osw->orw", triangle, kernels[1]).flatten(1)
        gram = vertical.T @ (self._moments @ vertical)  # (w, v, r, s)
        gram = gram.permute(2, 0, 3, 1).reshape(start.shape[1], -1)
        cross = torch.einsum("ojw,jr->orw", self._cross, vertical).flatten(1)
        fitted, shift = regression(gram, cross, start)
        # <fitted, fitted gram - 2 cross>, for fitted (gram + shift) = cross + shift start
        loss = float((fitted * (shift * (start - fitted) - cross)).sum())
        return (vertical, fitted.reshape(outputs, -1, width)), loss

    def _fit_vertical(self, kernels: Kernels) -> Kernels:
        """A better vertical kernel for the horizontal one."""
        vertical, horizontal = kernels
        gram = torch.einsum("orw,osv->wvrs", horizontal, horizontal)
        along, across = self._traces
        fitted = conjugate_gradient(
            lambda direction: (self._moments @ (direction @ gram.transpose(2, 3))).sum((0, 1)),
            torch.einsum("ojw,orw->jr", self._cross, horizontal),
            vertical,
            (along, torch.einsum("wvrs,wv->rs", gram, across)),
            STEPS,
        )
        return fitted, horizontal


def _cut(kernels: Kernels, rank: int) -> Kernels:
    return kernels[0][:, :rank], kernels[1][:, :rank]
