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
    conjugate_gradient,
    exact,
    exact_metric,
    falling_eigenvectors,
    kronecker_factors,
    regression,
    roots,
    unfold,
)

SWEEPS = 1
STEPS = 3  # of conjugate gradients, in each sweep

Factors = tuple[Tensor, Tensor, Tensor]  # in_factor (i, q), core (p, q, k), out_factor (o, p)


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
        self._metric = exact_metric(metric, weight)

    def factors(self, ranks: tuple[int, ...]) -> Factors:
        """Input factor (R_in, I), core (R_out, R_in, kh, kw) and output factor (O, R_out).

        In the norm of the metric never worse than the plain truncated HOSVD.

        Args:
            ranks: (R_out, R_in).

        Raises:
            RankError: a rank lies outside 1 to (O, I).
        """
        check_ranks(ranks, tuple(self._kernel.shape[:2]))
        plain = self._metric is None
        in_factor, core, out_factor = self._hosvd(ranks) if plain else self._fitted(ranks)
        return in_factor.T, core.reshape(*core.shape[:2], *self._size), out_factor

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
        assert self._metric is not None
        root, inverse = roots(self._traces[0])
        inputs = torch.einsum("oik,ij->ojk", self._kernel, root)
        gram = torch.einsum("oik,kl,ojl->ij", inputs, self._traces[1], inputs)
        in_basis = falling_eigenvectors(gram)[1]
        outputs = self._kernel.flatten(1)
        out_basis = falling_eigenvectors(self._cross.flatten(1) @ outputs.T)[1]
        return out_basis, inverse @ in_basis, root @ in_basis

    def _whitened_hosvd(self, ranks: tuple[int, ...]) -> Factors:
        out_basis, in_basis, dual = self._whitened_bases
        out_factor, in_factor = out_basis[:, : ranks[0]], in_basis[:, : ranks[1]]
        core = torch.einsum("oik,op,iq->pqk", self._kernel, out_factor, dual[:, : ranks[1]])
        return in_factor, core, out_factor

    @cached_property
    def _traces(self) -> tuple[Tensor, Tensor]:
        assert self._metric is not None
        return kronecker_factors(self._metric, *self._kernel.shape[1:])

    @cached_property
    def _cross(self) -> Tensor:
        """The kernel times the metric, (o, i, k)."""
        assert self._metric is not None
        return (self._kernel.flatten(1) @ self._metric).reshape(self._kernel.shape)

    def _fitted(self, ranks: tuple[int, ...]) -> Factors:
        starts = (self._hosvd(ranks), self._whitened_hosvd(ranks))
        factors, _ = min((self._fit_outputs(start) for start in starts), key=lambda fit: fit[1])
        for _ in range(SWEEPS):
            factors, _ = self._fit_outputs(self._fit_inputs(factors))
        return factors

    def _fit_outputs(self, factors: Factors) -> tuple[Factors, float]:
        """The best output factor and core for the input factor; the loss up to a constant."""
        assert self._metric is not None
        _, inputs, places = self._kernel.shape
        _, rank_out = factors[2].shape
        in_factor, triangle = torch.linalg.qr(factors[0])
        start = torch.einsum("op,psk,qs->oqk", factors[2], factors[1], triangle).flatten(1)
        half = (in_factor.T @ self._metric.reshape(inputs, -1)).reshape(-1, inputs, places)
        gram = torch.einsum("xil,is->xsl", half, in_factor).reshape(start.shape[1], -1)
        cross = torch.einsum("oik,iq->oqk", self._cross, in_factor).flatten(1)
        unlimited, shift = regression(gram, cross, start)
        outputs = cross + shift * start  # unlimited (gram + shift)
        out_factor = falling_eigenvectors(outputs @ unlimited.T)[1][:, :rank_out]
        core, outputs, cross = (out_factor.T @ each for each in (unlimited, outputs, cross))
        loss = float((core * (outputs - shift * core - 2 * cross)).sum())
        return (in_factor, core.reshape(rank_out, -1, places), out_factor), loss

    def _fit_inputs(self, factors: Factors) -> Factors:
        """A better input factor for the output factor and the core."""
        metric = self._metric
        assert metric is not None
        in_factor, core, out_factor = factors
        along, across = self._traces

        def outputs_of(direction: Tensor) -> Tensor:
            return torch.einsum("iq,pqk->pik", direction, core)

        def inputs_of(outputs: Tensor) -> Tensor:
            return torch.einsum("pik,pqk->iq", outputs, core)

        def apply(direction: Tensor) -> Tensor:
            outputs = outputs_of(direction)
            return inputs_of((outputs.flatten(1) @ metric).reshape(outputs.shape))

        fitted = conjugate_gradient(
            apply,
            inputs_of(torch.einsum("oik,op->pik", self._cross, out_factor)),
            in_factor,
            (along, torch.einsum("pqk,kl,psl->qs", core, across, core)),
            STEPS,
        )
        return fitted, core, out_factor
