"""Sums of Kronecker products: W = sum over k of B_k x A_k.

Plain: the truncated SVD of the weight with its entries rearranged, so that each product becomes
an outer product (Van Loan and Pitsianis, "Approximation with Kronecker Products", 1993); all
numbers of terms are nested. The places of a kernel stay with one of the two factors (Hameed et
al., "Convolutional Neural Network Compression through Generalized Kronecker Product
Decomposition", AAAI 2022).

So rearranged it is the problem of spatial SVD: A_k (o, s) takes the place of its columns, B_k
(p, j) that of its rows. The slices of the outputs all see the same inputs, so the metric is
repeated for each of them.

Letters: p, slices of the outputs, and o, outputs in a slice; s, slices of the inputs, and j, what
a slice holds, channels with their places; k, terms.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.decompose.folds import per_slice
from compress.decompose.linalg import check_ranks, exact, exact_metric
from compress.decompose.spatial_svd import SpatialSvd


class KroneckerSum:
    """Any number of terms of any sizes of one weight; what one pair of sizes needs is kept.

    Args:
        weight: (O, I) or (O, I, *kernel).
        metric: second moment (D, D) of the flattened inputs, D = I * kh * kw, or None.

    Raises:
        CompressError: the weight or the metric is not finite, or they do not fit.
    """

    def __init__(self, weight: Tensor, metric: Tensor | None = None) -> None:
        self._weight = exact(weight)
        self._metric = exact_metric(metric, weight)
        self._fits: dict[tuple[int, int], SpatialSvd] = {}

    def factors(self, ranks: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """The layer for the slices of the inputs, then the one for those of the outputs.

        The weight is the sum of B_k x A_k; in the norm of the metric never worse than the plain
        optimum. Terms that it cannot use hold zeros.

        Args:
            ranks: (K, S_out, S_in): terms, slices of the outputs and slices of the inputs.

        Returns:
            (K S_out, I / S_in, *kernel), all B_k, and (O / S_out, S_in K), all A_k.

        Raises:
            RankError: a rank lies outside 1 to `kronecker_limits`, or slices are no divisor.
        """
        fit, usable = self._fit(ranks)
        terms, slices_out, _ = ranks
        spare = terms - usable
        inner, outer = fit.factors((usable,))  # (k, p, j), (o, k, s)
        inner = F.pad(inner, (0, 0, 0, 0, 0, spare))
        outer = F.pad(outer, (0, 0, 0, spare))
        size = (terms * slices_out, -1, *self._weight.shape[2:])
        return inner.reshape(size), outer.transpose(1, 2).flatten(1)

    def error(self, ranks: tuple[int, ...]) -> float:
        """Squared relative output error of `factors`, in the norm of the metric."""
        fit, usable = self._fit(ranks)
        return fit.error((usable,))

    def _fit(self, ranks: tuple[int, ...]) -> tuple[SpatialSvd, int]:
        """The fits of these slices, and how many of the terms they can use."""
        check_ranks(ranks, kronecker_limits(self._weight.shape))
        terms, slices_out, slices_in = ranks
        if (slices_out, slices_in) not in self._fits:
            arranged = self._arranged(slices_out, slices_in)
            self._fits[slices_out, slices_in] = SpatialSvd(*arranged)
        outer = len(self._weight) // slices_out * slices_in
        usable = min(terms, outer, self._weight.numel() // outer)
        return self._fits[slices_out, slices_in], usable

    def _arranged(self, slices_out: int, slices_in: int) -> tuple[Tensor, Tensor | None]:
        """The weight (o, p, j, s), and the metric (p j s, p j s)."""
        outputs, inputs, *size = self._weight.shape
        per_out, per_in = per_slice(outputs, slices_out), per_slice(inputs, slices_in)
        kernel = self._weight.reshape(slices_out, per_out, per_in, slices_in, math.prod(size))
        weight = kernel.permute(1, 0, 2, 4, 3).flatten(2, 3)
        if self._metric is None:
            return weight, None
        blocks = self._metric.reshape(2 * (per_in, slices_in, math.prod(size)))
        metric = blocks.permute(0, 2, 1, 3, 5, 4).reshape(self._metric.shape)
        repeated = torch.block_diag(*[metric] * slices_out)  # type: ignore[no-untyped-call]
        return weight, repeated


def kronecker_limits(size: tuple[int, ...]) -> tuple[int, int, int]:
    """The greatest (K, S_out, S_in) of a weight of this size; no slices can use more terms."""
    return math.isqrt(math.prod(size)), size[0], size[1]
