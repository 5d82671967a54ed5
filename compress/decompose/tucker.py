"""Tucker-2: a kernel as a small core between two channel factors.

Plain: the truncated HOSVD (De Lathauwer et al., "A Multilinear Singular Value Decomposition",
2000). In the norm of the data: the output factor with the core, and the input factor, are fitted
in turn, each to the other (`tucker_loss`).

Letters: k and l, the places of a flattened kernel; p, ranks out; q, ranks in.
"""

from functools import cached_property

import torch
from torch import Tensor

from compress.decompose.linalg import (
    check_ranks,
    exact,
    exact_metric,
    falling_eigenvectors,
    roots,
    unfold,
)
from compress.decompose.tucker_loss import Factors, TuckerLoss

SWEEPS = 1
STEPS = 3  # of conjugate gradients, in each sweep


class Tucker2:
    """Every pair of ranks of one kernel; the eigendecompositions are shared.

    Args:
        weight: (O, I, kh, kw).
        metric: second moment (D, D) of the patches, D = I * kh * kw, or None.

    Raises:
        CompressError: the weight or the metric is not finite, or they do not fit.
    """

    def __init__(self, weight: Tensor, metric: Tensor | None = None) -> None:
        self._shape = weight.shape
        kernel = exact(weight).flatten(2)
        self._fit = TuckerFit(kernel, TuckerLoss.of(kernel, exact_metric(metric, weight)))

    def factors(self, ranks: tuple[int, ...]) -> Factors:
        """Input factor (R_in, I), core (R_out, R_in, kh, kw) and output factor (O, R_out).

        In the norm of the metric never worse than the plain truncated HOSVD.

        Args:
            ranks: (R_out, R_in).

        Raises:
            RankError: a rank lies outside 1 to (O, I).
        """
        check_ranks(ranks, tuple(self._shape[:2]))
        in_factor, core, out_factor = self._fit.factors(ranks)
        return in_factor.T, core.reshape(*core.shape[:2], *self._shape[2:]), out_factor


class TuckerFit:
    """The same for a kernel (o, i, k) and a loss, all in float64 and fit for each other."""

    def __init__(self, kernel: Tensor, loss: TuckerLoss) -> None:
        self._kernel = kernel
        self._loss = loss

    def factors(self, ranks: tuple[int, ...]) -> Factors:
        """Input factor (i, q), core (p, q, k) and output factor (o, p), for the ranks (p, q)."""
        return self._hosvd(ranks) if self._loss.metric is None else self._fitted(ranks)

    @cached_property
    def _bases(self) -> tuple[Tensor, Tensor]:
        """Eigenvectors (o, o) and (i, i) of the Gram matrices of the two channel modes."""
        out_basis, in_basis = (
            falling_eigenvectors(matrix @ matrix.T)[1]
            for matrix in (unfold(self._kernel, 0), unfold(self._kernel, 1))
        )
        return out_basis, in_basis

    def _hosvd(self, ranks: tuple[int, ...]) -> Factors:
        out_factor, in_factor = (
            basis[:, :rank] for basis, rank in zip(self._bases, ranks, strict=True)
        )
        core = torch.einsum("oik,op,iq->pqk", self._kernel, out_factor, in_factor)
        return in_factor, core, out_factor

    @cached_property
    def _whitened_bases(self) -> tuple[Tensor, Tensor, Tensor]:
        """(o, o), (i, i) and the left inverse of that, (i, i).

        The HOSVD that would be optimal, mode by mode, were the metric a Kronecker product over
        inputs and places.
        """
        along, across = self._loss.traces
        root, inverse = roots(along)
        inputs = torch.einsum("oik,ij->ojk", self._kernel, root)
        gram = torch.einsum("oik,kl,ojl->ij", inputs, across, inputs)
        in_basis = falling_eigenvectors(gram)[1]
        outputs = self._kernel.flatten(1)
        out_basis = falling_eigenvectors(self._loss.cross.flatten(1) @ outputs.T)[1]
        return out_basis, inverse @ in_basis, root @ in_basis

    def _whitened_hosvd(self, ranks: tuple[int, ...]) -> Factors:
        out_basis, in_basis, dual = self._whitened_bases
        out_factor, in_factor = out_basis[:, : ranks[0]], in_basis[:, : ranks[1]]
        core = torch.einsum("oik,op,iq->pqk", self._kernel, out_factor, dual[:, : ranks[1]])
        return in_factor, core, out_factor

    def _fitted(self, ranks: tuple[int, ...]) -> Factors:
        starts = (self._hosvd(ranks), self._whitened_hosvd(ranks))
        fits = (self._loss.fit_outputs(start) for start in starts)
        factors, _ = min(fits, key=lambda fit: fit[1])
        for _ in range(SWEEPS):
            factors, _ = self._loss.fit_outputs(self._loss.fit_inputs(factors, STEPS))
        return factors
