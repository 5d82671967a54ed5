"""Alternating least squares for the terms of a CP decomposition, kept from cancelling each other.

Kolda and Bader, "Tensor Decompositions and Applications", 2009, section 3.4, extrapolated after
each sweep (Ang, Cohen, Gillis and Hien, "Accelerating Block Coordinate Descent for Nonnegative
Tensor Factorization", 2021), from a start that is exact at full rank: the kernel is turned into
the eigenbasis of its places, each place then is a matrix, and the R largest terms of the SVDs of
these matrices are kept. They are orthogonal, so none cancels another; sweeps end before the
terms together hold more than `MOST_ENERGY` times the energy of the kernel (terms that cancel
each other are known as degeneracy), and begin anew with a larger ridge.

Letters: o, i, channels out and in; h, w, places, flattened k; r, terms.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from compress.decompose.linalg import falling_eigenvectors, regression, unfold
from compress.decompose.svd import output_basis
from compress.errors import DegenerateError

SWEEPS = 16
STALLED = 1e-3  # of the squared error: a sweep that gains less is the last
FURTHER = 0.6  # of its change: so much farther than a sweep came does the next one begin
RIDGES = (1e-4, 1e-2)  # of the mean diagonal; each is tried where the one before lets terms grow
MOST_ENERGY = 100.0  # terms 10 times the kernel: one decimal digit lost where they cancel
# Of the energy: above this squared error the products with the kernel may be in float32, whose
# round-off, 1e-14 when squared, is far below it. The normal equations stay in float64.
SINGLE = 1e-4

Factors = list[Tensor]  # (o, r), (i, r), then one for each axis of places


@dataclass(frozen=True, slots=True)
class Terms:
    """The outer products that stand for a kernel."""

    factors: Factors
    error: float
    """Squared."""
    starts: int
    """How often sweeps began: more than once where terms grew too large."""


class Als:
    """The terms of one kernel (O, I, ...), float64, at any rank; the start is shared."""

    def __init__(self, kernel: Tensor) -> None:
        self.kernel = kernel
        self.energy = float(kernel.square().sum())

    @property
    def most_terms(self) -> int:
        """The rank at which the start is exact."""
        return self._start[0].shape[1]

    def fit(self, rank: int) -> Terms:
        """Terms that lower the squared error for as long as they stay bounded.

        Raises:
            DegenerateError: whatever the ridge, terms grow to cancel each other.
        """
        start = [factor[:, :rank] for factor in self._start]
        for count, ridge in enumerate(RIDGES, 1):
            factors, error, bounded = self._descend(start, ridge)
            if bounded:
                return Terms(factors, error, count)
        raise DegenerateError(
            f"CP of rank {rank} degenerates: with ridges up to {RIDGES[-1]:g} its terms still "
            f"grow beyond {MOST_ENERGY:g} times the energy of the kernel and cancel each other; "
            "tucker2 has no terms that can"
        )

    @cached_property
    def _start(self) -> Factors:
        """All terms of the SVD of each place, in the eigenbasis of the places, largest first."""
        kernel, size = self.kernel, self.kernel.shape[2:]
        bases = []
        for _ in size:
            matrix = unfold(kernel, 2)
            bases.append(falling_eigenvectors(matrix @ matrix.T)[1])
            kernel = torch.tensordot(kernel, bases[-1], ([2], [0]))  # the next axis comes up
        terms = [output_basis(matrix) for matrix in kernel.flatten(2).movedim(2, 0)]
        largest = torch.cat([term.energies for term in terms]).argsort(descending=True, stable=True)
        count = len(terms[0].energies)
        place, places = largest // count, list[Tensor]()
        for length in reversed(size):
            places.insert(0, place % length)
            place = place // length
        return balanced(
            [
                torch.cat([term.out_factor for term in terms], 1)[:, largest],
                torch.cat([term.in_factor for term in terms])[largest].T,
                *(basis[:, place] for basis, place in zip(bases, places, strict=True)),
            ]
        )

    @cached_property
    def _single(self) -> Tensor:
        return self.kernel.float()

    def _descend(self, start: Factors, ridge: float) -> tuple[Factors, float, bool]:
        """Sweeps until they stall; False where the terms would have grown too large."""
        kept, error = start, max(self.energy - energy(start), 0.0)
        begin = start
        for _ in range(SWEEPS):
            kernel = self._single if error > SINGLE * self.energy else self.kernel
            swept, after = self._sweep(kernel, begin, ridge)
            if after > error and begin is not kept:
                begin = kept  # too far
                continue
            if energy(swept) > MOST_ENERGY * self.energy:
                return kept, error, False
            begin = [new + FURTHER * (new - old) for new, old in zip(swept, kept, strict=True)]
            kept, before, error = swept, error, after
            if before - after <= STALLED * before:
                break
        return kept, error, True

    def _sweep(self, kernel: Tensor, factors: Factors, ridge: float) -> tuple[Factors, float]:
        """Each factor once, and the squared error after.

        Args:
            kernel: in the precision of the products.
            factors: in float64.
            ridge: of the mean diagonal of the normal equations.
        """
        out_factor, in_factor, *places = factors
        outputs, inputs = kernel.shape[:2]
        matrix = kernel.reshape(outputs, -1)
        cross = (matrix @ khatri_rao([in_factor, *places]).to(kernel)).double()
        out_factor, _ = regression(gram_of([in_factor, *places]), cross, out_factor, ridge)

        seen = (out_factor.T.to(kernel) @ matrix).reshape(out_factor.shape[1], inputs, -1)
        cross = torch.einsum("rik,kr->ir", seen, khatri_rao(places).to(kernel)).double()
        in_factor, _ = regression(gram_of([out_factor, *places]), cross, in_factor, ridge)

        seen = torch.einsum("rik,ir->rk", seen, in_factor.to(kernel)).double()
        seen = seen.reshape(len(seen), *kernel.shape[2:])
        for axis in range(len(places)):
            others = [*places[:axis], *places[axis + 1 :]]
            cross = seen.movedim(axis + 1, 0).reshape(len(places[axis]), len(seen), -1)
            cross = (cross * khatri_rao(others).T).sum(2) if others else cross.squeeze(2)
            gram = gram_of([out_factor, in_factor, *others])
            places[axis], _ = regression(gram, cross, places[axis], ridge)
        fitted = [out_factor, in_factor, *places]
        error = self.energy - float(2 * (cross * places[-1]).sum() - gram_of(fitted).sum())
        return balanced(fitted), error


def khatri_rao(factors: Factors) -> Tensor:
    """The columns' Kronecker products, (product of the sizes, r)."""
    product = factors[0]
    for factor in factors[1:]:
        product = (product[:, None] * factor).flatten(0, 1)
    return product


def gram_of(factors: Factors) -> Tensor:
    """Inner products (r, r) of the columns of the Khatri-Rao product."""
    gram = factors[0].T @ factors[0]
    for factor in factors[1:]:
        gram = gram * (factor.T @ factor)
    return gram


def energy(factors: Factors) -> float:
    """The sum of the terms' own energies: that of the tensor where they are orthogonal."""
    return float(gram_of(factors).diagonal().sum())


def balanced(factors: Factors) -> Factors:
    """Each term spread evenly over the factors; a term of zero stays zero."""
    norms = torch.stack([factor.norm(dim=0) for factor in factors])
    share = norms.prod(0) ** (1 / len(factors))
    tiny = torch.finfo(norms.dtype).tiny
    scales = share / norms.clamp_min(tiny)
    return [factor * scale for factor, scale in zip(factors, scales, strict=True)]
