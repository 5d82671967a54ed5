"""Fewer inputs for a weight, in the norm of the data: what Tucker-2 and spatial SVD share.

A weight (O, A, B) has inputs of two modes, of which the first is reduced: input factor (A, Q),
core (P, Q, B) and output factor (O, P). Given the input factor the rest is a reduced-rank
regression (Izenman, "Reduced-Rank Regression for the Multivariate Linear Model", 1975), a plain
one where no output rank is asked for. For the leading columns of one basis these regressions are
nested: the leading block of a Cholesky factor is the Cholesky factor of the leading block, so
one factorisation serves all ranks. From there, input factor and core alternate.

Letters: a, inputs; q and s, ranks in; c and d, the second mode of the inputs; p, ranks out.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from compress.decompose.linalg import (
    RIDGE,
    cholesky,
    conjugate_gradient_through,
    falling_eigenvectors,
    kronecker_likelihood,
    regression,
)


@dataclass(frozen=True, slots=True)
class Reduced:
    """One fit; the loss is the squared output error less that of a weight of zeros."""

    in_factor: Tensor  # (A, Q)
    core: Tensor  # (P, Q, B)
    out_factor: Tensor | None  # (O, P), orthonormal columns; None for P = O
    loss: float


class Problem:
    """One weight (O, A, B) with the second moment of its inputs, (A * B, A * B), in float64."""

    def __init__(self, kernel: Tensor, metric: Tensor) -> None:
        self.kernel = kernel
        self.metric = metric

    @cached_property
    def cross(self) -> Tensor:
        """The kernel times the metric, (O, A, B)."""
        return (self.kernel.flatten(1) @ self.metric).reshape(self.kernel.shape)

    @cached_property
    def kronecker(self) -> tuple[Tensor, Tensor]:
        """(A, A) and (B, B), whose Kronecker product is near the metric."""
        return kronecker_likelihood(self.metric, *self.kernel.shape[1:])

    @cached_property
    def energy(self) -> float:
        """The squared outputs of the weight itself."""
        return float((self.kernel * self.cross).sum().clamp_min(0))

    @cached_property
    def whitened_basis(self) -> Tensor:
        """(A, A), orthonormal: the leading Q columns span the best input factor of any Q, were
        the metric this Kronecker product."""
        along, across = self.kronecker
        root, _ = cholesky(along, RIDGE)
        white = torch.einsum("ij,oic->joc", root, self.kernel)
        gram = white.flatten(1) @ (white @ across).flatten(1).T
        _, vectors = falling_eigenvectors((gram + gram.T) / 2)
        basis, _ = torch.linalg.qr(torch.linalg.solve_triangular(root.T, vectors, upper=True))
        return basis

    def rated(self, factors: tuple[Tensor, Tensor, Tensor]) -> Reduced:
        """Input factor, core and output factor with their loss."""
        in_factor, core, out_factor = factors
        weight = torch.einsum("aq,pqc->pac", in_factor, core).flatten(1)
        target = (out_factor.T @ self.cross.flatten(1)).reshape(weight.shape)
        loss = float((weight * (weight @ self.metric - 2 * target)).sum())
        return Reduced(in_factor, core, out_factor, loss)

    def improved(self, fit: Reduced, sweeps: int, steps: int) -> Reduced:
        """`fit` after sweeps of input factor, by conjugate gradients, and core; the loss falls.

        Args:
            fit: any.
            sweeps: alternations.
            steps: of conjugate gradients, in each sweep.
        """
        _, inputs, places = self.kernel.shape
        rank = fit.core.shape[1]
        rows = self.metric.reshape(inputs, -1)
        along, across = self.kronecker

        def half(in_factor: Tensor) -> Tensor:
            return in_factor.T @ rows  # (q, c a d)

        in_factor, core, out_factor, loss = fit.in_factor, fit.core, fit.out_factor, fit.loss
        product = half(in_factor) if sweeps else rows[:0]
        for _ in range(sweeps):
            gram = torch.einsum("pqc,psd->qcds", core, core).flatten(0, 2)

            def close(product: Tensor, gram: Tensor = gram) -> Tensor:
                seen = product.reshape(rank, places, inputs, places).permute(2, 0, 1, 3)
                return seen.flatten(1) @ gram

            cross = self.cross
            seen = cross if out_factor is None else torch.tensordot(out_factor.T, cross, 1)
            in_factor, product = conjugate_gradient_through(
                half,
                close,
                torch.einsum("pac,pqc->aq", seen, core),
                (in_factor, product),
                kronecker=(along, torch.einsum("pqc,cd,psd->qs", core, across, core)),
                steps=steps,
            )
            core, out_factor, loss = self._core(in_factor, product, core, out_factor)
        return Reduced(in_factor, core, out_factor, loss)

    def _core(
        self, in_factor: Tensor, product: Tensor, core: Tensor, out_factor: Tensor | None
    ) -> tuple[Tensor, Tensor | None, float]:
        """The best core and output factor for an input factor, and the loss."""
        _, inputs, places = self.kernel.shape
        rank = in_factor.shape[1]
        gram = torch.einsum(
            "qcad,as->qcsd", product.reshape(rank, places, inputs, places), in_factor
        ).reshape(rank * places, -1)
        cross = torch.einsum("oac,aq->oqc", self.cross, in_factor).flatten(1)
        start = core.flatten(1) if out_factor is None else out_factor @ core.flatten(1)
        fitted, shift = regression(gram, cross, start)
        if out_factor is not None:
            outputs = cross + shift * start  # fitted (gram + shift)
            out_factor = falling_eigenvectors(outputs @ fitted.T)[1][:, : len(core)]
            fitted, cross, start = (out_factor.T @ each for each in (fitted, cross, start))
        loss = float((fitted * (shift * (start - fitted) - cross)).sum())
        return fitted.reshape(core.shape), out_factor, loss


class NestedFits:
    """The fits of every rank that begin with the leading columns of one basis.

    Args:
        problem: the weight and its metric.
        basis: (A, N), orthonormal columns; the ranks in are at most N.
    """

    def __init__(self, problem: Problem, basis: Tensor) -> None:
        self._problem = problem
        self._basis = basis
        self._places = problem.kernel.shape[2]
        half = _over_rows(basis, problem.metric, self._places)
        metric = _over_rows(basis, half.T, self._places)
        self._kernel, self._cross = (
            torch.einsum("oac,aq->oqc", tensor, basis).flatten(1)
            for tensor in (problem.kernel, problem.cross)
        )
        self._factor, self._shift = cholesky(metric, RIDGE)
        self._seen, self._anchor = (
            torch.linalg.solve_triangular(self._factor, tensor.T, upper=False)
            for tensor in (self._cross, self._kernel)
        )

    def first(self, rank: int, outputs: Tensor | None = None) -> Reduced:
        """The best core and output factor for the leading `rank` columns of the basis.

        Never worse than the weight projected on these columns and on `outputs`.

        Args:
            rank: Q.
            outputs: (O, P), orthonormal columns; None leaves the outputs as they are.
        """
        size = rank * self._places
        in_factor = self._basis[:, :rank]
        seen, anchor, cross = self._seen[:size], self._anchor[:size], self._cross[:, :size]
        start = self._kernel[:, :size]
        if outputs is None:
            out_factor = None
            seen = seen + self._shift * anchor
        else:
            anchor, start = (anchor @ outputs) @ outputs.T, outputs @ (outputs.T @ start)
            seen = seen + self._shift * anchor
            out_factor = falling_eigenvectors(seen.T @ seen)[1][:, : outputs.shape[1]]
            seen, cross, start = seen @ out_factor, out_factor.T @ cross, out_factor.T @ start
        factor = self._factor[:size, :size]
        core = torch.linalg.solve_triangular(factor.T, seen, upper=True).T
        # <core, core metric - 2 cross>, for core (metric + shift) = cross + shift start
        loss = float((core * (self._shift * (start - core) - cross)).sum())
        return Reduced(in_factor, core.reshape(len(core), rank, -1), out_factor, loss)


def _over_rows(basis: Tensor, matrix: Tensor, places: int) -> Tensor:
    """The rows (a, c) of a matrix turned into (q, c)."""
    turned = basis.T @ matrix.reshape(len(basis), -1)
    return turned.reshape(basis.shape[1] * places, -1)
