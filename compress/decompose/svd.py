"""Channel SVD: a weight as a product of two, optimal for the outputs.

With Sigma the second moment of the inputs, the best rank-R weight keeps the R leading
eigenvectors U of the output second moment W Sigma Wᵀ: What = U Uᵀ W. This is the truncated
SVD of W Sigma^(1/2) without its inverse root, so a singular Sigma needs no care.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from compress.decompose.linalg import check_ranks, exact, exact_metric, falling_eigenvectors

# Of the largest energy: below it, eigenvectors of a Gram matrix are round-off.
ROUND_OFF = 1e-13


@dataclass(frozen=True, slots=True)
class OutputBasis:
    """matrix (M, N) = out_factor @ in_factor, the L = min(M, N) terms by falling energy.

    The sum of the energies cut is the squared error, in the norm that made the basis.
    """

    out_factor: Tensor  # (M, L), orthonormal columns
    in_factor: Tensor  # (L, N)
    energies: Tensor  # (L,)


def output_basis(matrix: Tensor, metric: Tensor | None = None) -> OutputBasis:
    """The basis of outputs in which truncating `matrix` (M, N) costs least.

    Args:
        matrix: float64.
        metric: second moment (N, N) of what the matrix is applied to; None for white inputs.
    """
    rows, columns = matrix.shape
    lift, small = torch.linalg.qr(matrix) if rows > columns else (None, matrix)
    energies, vectors = falling_eigenvectors(
        small @ small.T if metric is None else small @ metric @ small.T
    )
    if metric is not None:
        vectors = _order_unseen(vectors, energies, small)
    out_factor = vectors if lift is None else lift @ vectors
    return OutputBasis(out_factor, vectors.T @ small, energies)


def _order_unseen(vectors: Tensor, energies: Tensor, matrix: Tensor) -> Tensor:
    """Outputs that the data never excite, ordered by the plain norm of their weights."""
    seen = int((energies > ROUND_OFF * energies[0]).sum())
    unseen = vectors[:, seen:].T @ matrix
    _, turn = falling_eigenvectors(unseen @ unseen.T)
    return torch.cat([vectors[:, :seen], vectors[:, seen:] @ turn], 1)


class ChannelSvd:
    """Every rank of one weight from one eigendecomposition.

    Args:
        weight: (O, I) or (O, I, kh, kw).
        metric: second moment (D, D) of the flattened inputs, D = I * kh * kw, or None.

    Raises:
        CompressError: the weight or the metric is not finite, or they do not fit.
    """

    def __init__(self, weight: Tensor, metric: Tensor | None = None) -> None:
        self._weight = exact(weight)
        self._metric = exact_metric(metric, weight)

    @cached_property
    def _basis(self) -> OutputBasis:
        return output_basis(self._weight.flatten(1), self._metric)

    @property
    def errors(self) -> Tensor:
        """Squared relative output error at each rank from 0 to the full one, (L + 1,)."""
        energies = self._basis.energies
        cut = torch.cat([energies, energies.new_zeros(1)]).flip(0).cumsum(0).flip(0)
        return cut / cut[0].clamp_min(torch.finfo(cut.dtype).tiny)

    def error(self, ranks: tuple[int, ...]) -> float:
        """Squared relative output error of `factors`, in the norm of the metric."""
        check_ranks(ranks, (len(self._basis.energies),))
        return float(self.errors[ranks[0]])

    def factors(self, ranks: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """(R, I, kh, kw) or (R, I), then (O, R): their product is the best of its rank.

        Raises:
            RankError: the rank is not between 1 and min(O, D).
        """
        basis = self._basis
        check_ranks(ranks, (len(basis.energies),))
        (rank,) = ranks
        in_factor = basis.in_factor[:rank].reshape(rank, *self._weight.shape[1:])
        return in_factor, basis.out_factor[:, :rank]
