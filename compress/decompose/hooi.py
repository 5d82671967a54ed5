"""The channels that hold most of a kernel: higher-order orthogonal iteration.

De Lathauwer, De Moor and Vandewalle, "On the Best Rank-1 and Rank-(R1, R2, ..., RN)
Approximation of Higher-Order Tensors", 2000. It begins with the inputs of the truncated HOSVD;
then come the best outputs for these inputs, the best inputs for these outputs, and so on. Each
step is exact, so no fit is worse than the truncated HOSVD.

Letters: k, the places of a flattened kernel; p, ranks out; q, ranks in.
"""

from functools import cached_property

import torch
from torch import Tensor

from compress.decompose.linalg import SINGLE, falling_eigenvectors

STEPS = 6  # and one
STALLED = 1e-3  # of the squared error: a step that gains less is the last

Factors = tuple[Tensor, Tensor, Tensor]  # in_factor (i, q), core (p, q, k), out_factor (o, p)


class Hooi:
    """Any ranks of one kernel (o, i, k), float64; the inputs of the HOSVD are shared."""

    def __init__(self, kernel: Tensor) -> None:
        self._kernel = kernel
        self.energy = float(torch.linalg.vector_norm(kernel)) ** 2

    def fit(self, ranks: tuple[int, int]) -> tuple[Factors, float]:
        """Channel factors with orthonormal columns and what they keep of the kernel, the core;
        the squared error.

        Args:
            ranks: (R_out, R_in).
        """
        found = self._single.fit(ranks)
        if found[1] <= SINGLE * self._single.energy:
            return self._double.fit(ranks)
        (in_factor, core, out_factor), left = found
        factors = in_factor.double(), core.double() * self._scale, out_factor.double()
        return factors, left * self._scale**2

    @cached_property
    def _scale(self) -> float:
        """In float32 the squares of what is small would be zero."""
        return float(self._kernel.abs().amax()) or 1.0

    @cached_property
    def _single(self) -> "_Iteration":
        return _Iteration((self._kernel / self._scale).float(), self.energy / self._scale**2)

    @cached_property
    def _double(self) -> "_Iteration":
        return _Iteration(self._kernel, self.energy)


class _Iteration:
    """In the precision of the kernel (o, i, k)."""

    def __init__(self, kernel: Tensor, energy: float) -> None:
        self.kernel = kernel
        self.energy = energy

    @cached_property
    def _by_place(self) -> Tensor:
        """(k, o, i): a product with either channel factor needs no copy."""
        return self.kernel.permute(2, 0, 1).contiguous()

    @cached_property
    def _in_basis(self) -> Tensor:
        """(i, i): the eigenvectors of the HOSVD."""
        rows = self._by_place.flatten(0, 1)
        return falling_eigenvectors(rows.T @ rows)[1]

    def fit(self, ranks: tuple[int, int]) -> tuple[Factors, float]:
        """The factors, and the energy that they leave."""
        rank_out, rank_in = ranks
        in_factor = self._in_basis[:, :rank_in].contiguous()
        out_factor, core, left = self._outputs(in_factor, rank_out)
        for step in range(STEPS):
            before = left
            if step % 2:
                out_factor, core, left = self._outputs(in_factor, rank_out)
            else:
                in_factor, core, left = self._inputs(out_factor, rank_in)
            if before - left <= STALLED * before:
                break
        return (in_factor, core.permute(1, 2, 0), out_factor), left

    def _outputs(self, in_factor: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
        """The best output factor, the core (k, p, q), and the energy left."""
        seen = self._by_place @ in_factor
        rows = seen.transpose(0, 1).flatten(1)
        energies, vectors = falling_eigenvectors(rows @ rows.T)
        out_factor = vectors[:, :rank]
        return out_factor, out_factor.T @ seen, self._left(energies[:rank])

    def _inputs(self, out_factor: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
        """The best input factor, the core (k, p, q), and the energy left."""
        seen = out_factor.T @ self._by_place
        rows = seen.flatten(0, 1)
        energies, vectors = falling_eigenvectors(rows.T @ rows)
        in_factor = vectors[:, :rank]
        return in_factor, seen @ in_factor, self._left(energies[:rank])

    def _left(self, kept: Tensor) -> float:
        return self.energy - float(kept.double().sum())
