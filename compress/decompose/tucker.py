"""Tucker-2: a kernel as a small core between two channel factors.

Plain: the truncated HOSVD (De Lathauwer et al., "A Multilinear Singular Value Decomposition",
2000). In the norm of the data: given the input factor, the best output factor and core are a
reduced-rank regression (Izenman, "Reduced-Rank Regression for the Multivariate Linear Model",
1975); given those, the input factor is a least squares problem; the two alternate.

Letters: k and l, the places of a flattened kernel; p, ranks out; q and s, ranks in.
"""

from functools import cached_property

import torch
from torch import Tensor

from compress.decompose.linalg import (
    check_ranks,
    exact,
    exact_metric,
    falling_eigenvectors,
    unfold,
)
from compress.decompose.reduction import NestedFits, Problem, Reduced
from compress.decompose.tucker_loss import Factors
from compress.equivalent import relative

SWEEPS = 1
STEPS = 2  # of conjugate gradients, in each sweep


class Tucker2:
    """Every pair of ranks of one kernel; the eigendecompositions are shared.

    Args:
        weight: (O, I, kh, kw).
        metric: second moment (D, D) of the patches, D = I * kh * kw, or None.

    Raises:
        CompressError: the weight or the metric is not finite, or they do not fit.
    """

    def __init__(self, weight: Tensor, metric: Tensor | None = None) -> None:
        self._size = weight.shape[2:]
        self._kernel = exact(weight).flatten(2)
        used = exact_metric(metric, weight)
        self._problem = None if used is None else Problem(self._kernel, used)
        self._latest: tuple[tuple[int, ...], Reduced] | None = None

    def factors(self, ranks: tuple[int, ...]) -> Factors:
        """Input factor (R_in, I), core (R_out, R_in, kh, kw) and output factor (O, R_out).

        In the norm of the metric never worse than the plain truncated HOSVD.

        Args:
            ranks: (R_out, R_in).

        Raises:
            RankError: a rank lies outside 1 to (O, I).
        """
        check_ranks(ranks, tuple(self._kernel.shape[:2]))
        if self._problem is None:
            in_factor, core, out_factor = self._hosvd(ranks)
        else:
            fit = self._fit(self._problem, ranks)
            assert fit.out_factor is not None
            in_factor, core, out_factor = fit.in_factor, fit.core, fit.out_factor
        return in_factor.T, core.reshape(*core.shape[:2], *self._size), out_factor

    def error(self, ranks: tuple[int, ...]) -> float:
        """Squared relative output error of `factors`, in the norm of the metric."""
        check_ranks(ranks, tuple(self._kernel.shape[:2]))
        if self._problem is None:
            energy = float(self._kernel.square().sum())
            kept = float(self._hosvd(ranks)[1].square().sum())
            return relative(max(energy - kept, 0.0), energy)
        loss = self._fit(self._problem, ranks).loss
        return relative(max(self._problem.energy + loss, 0.0), self._problem.energy)

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
    def _nested(self) -> tuple[NestedFits, NestedFits]:
        """From the inputs that hold most of the kernel, and from those that hold most of its
        outputs."""
        problem = self._problem
        assert problem is not None
        return NestedFits(problem, self._bases[1]), NestedFits(problem, problem.whitened_basis)

    def _fit(self, problem: Problem, ranks: tuple[int, ...]) -> Reduced:
        """The latest one is kept: its error is asked for after its factors."""
        if self._latest is None or self._latest[0] != ranks:
            rank_out, rank_in = ranks
            outputs = self._bases[0][:, :rank_out]
            starts = (nest.first(rank_in, outputs) for nest in self._nested)
            start = min(starts, key=lambda fit: fit.loss)
            self._latest = ranks, problem.improved(start, SWEEPS, STEPS)
        return self._latest[1]
