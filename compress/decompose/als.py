"""Alternating least squares for the terms of a CP decomposition, kept from cancelling each other.

Kolda and Bader, "Tensor Decompositions and Applications", 2009, section 3.4, extrapolated after
each sweep (Ang, Cohen, Gillis and Hien, "Accelerating Block Coordinate Descent for Nonnegative
Tensor Factorization", 2021). A fit begins with the terms of the next smaller rung of a ladder of
ranks, so that most of the work is shared by all ranks, and with new ones. These come from a start
that is exact at full rank: the kernel is turned into the eigenbasis of its places, each place
then is a matrix, and the largest terms of the SVDs of these matrices are taken. They are
orthogonal, a saddle that sweeps leave but slowly: on the ladder noise goes with them. Where the
start alone is nearer to the kernel than the ladder, it is taken.

Sweeps end before the terms together hold more than `MOST_ENERGY` times the energy of the kernel
(terms that cancel each other are known as degeneracy), and begin anew with a larger ridge.

Letters: o, i, channels out and in; h, w, places, flattened k; r, terms.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from compress.decompose.linalg import falling_eigenvectors, regression, unfold
from compress.decompose.svd import output_basis
from compress.decompose.terms import Factors, balanced, energy, grams_of, khatri_rao, product
from compress.errors import DegenerateError

LOWEST = 8  # rank of the ladder
RUNG = 1.5  # each has so many times the terms of the one below
CLIMBING = 4  # sweeps on each rung
SWEEPS = 7  # from the ladder
STALLED = 1e-3  # of the squared error: a sweep that gains less is the last
FURTHER = 0.6  # of its change: so much farther than a sweep came does the next one begin
RIDGES = (1e-4, 1e-2)  # of the mean diagonal; each is tried where the one before lets terms grow
MOST_ENERGY = 100.0  # terms 10 times the kernel: one decimal digit lost where they cancel
# Of the energy: above this squared error sweeps are in float32, whose round-off, 1e-7 of the
# energy, is less than the gain that would end them.
SINGLE = 1e-3


@dataclass(frozen=True, slots=True)
class Terms:
    """The outer products that stand for a kernel."""

    factors: Factors
    error: float
    """Squared."""
    starts: int = 1
    """How often sweeps began: more than once where terms grew too large."""


class Als:
    """The terms of one kernel (O, I, ...), float64, at any rank; start and ladder are shared."""

    def __init__(self, kernel: Tensor) -> None:
        self.kernel = kernel
        self.energy = float(kernel.square().sum())
        # In float32 the squares of what is small would be zero.
        self._scale = float(kernel.abs().amax()) or 1.0
        self._unit = kernel / self._scale
        self._unit_energy = float(self._unit.square().sum())
        self._rungs: list[Terms] = []

    @property
    def most_terms(self) -> int:
        """The rank at which the start is exact."""
        outputs, inputs, *size = self.kernel.shape
        return min(outputs, inputs) * math.prod(size)

    def fit(self, rank: int) -> Terms:
        """Terms that lower the squared error for as long as they stay bounded.

        Raises:
            DegenerateError: whatever the ridge, terms grow to cancel each other.
        """
        start = found = self._started(rank)
        if rank > LOWEST:
            found = self._bounded(self._grown(self._rung_below(rank), rank))
        if rank <= LOWEST or found.error > start.error:
            found = self._bounded(start)
        scale = self._scale ** (1 / self.kernel.ndim)
        factors = [factor.double() * scale for factor in found.factors]
        return Terms(factors, found.error * self._scale**2, found.starts)

    def _bounded(self, begin: Terms) -> Terms:
        for count, ridge in enumerate(RIDGES, 1):
            found, bounded = self._descend(begin, SWEEPS, ridge)
            if bounded:
                return Terms(found.factors, found.error, count)
        rank = begin.factors[0].shape[1]
        raise DegenerateError(
            f"CP of rank {rank} degenerates: with ridges up to {RIDGES[-1]:g} its terms still "
            f"grow beyond {MOST_ENERGY:g} times the energy of the kernel and cancel each other; "
            "tucker2 has no terms that can"
        )

    def _started(self, rank: int) -> Terms:
        factors = [factor[:, :rank] for factor in self._start_single]
        error = self._unit_energy - energy(factors)
        if error <= SINGLE * self._unit_energy:
            factors = [factor[:, :rank] for factor in self._start_double]
            error = self._unit_energy - energy(factors)
        return Terms(factors, max(error, 0.0))

    def _rung_below(self, rank: int) -> Terms:
        """The greatest rung of fewer terms; those up to it are climbed once."""
        level = 0
        while (count := int(LOWEST * RUNG**level)) < rank:
            if level == len(self._rungs):
                below = self._rungs
                begin = self._grown(below[-1], count) if below else self._started(count)
                self._rungs.append(self._descend(begin, CLIMBING, RIDGES[0])[0])
            level += 1
        return self._rungs[level - 1]

    def _grown(self, terms: Terms, rank: int) -> Terms:
        """With new terms that add nothing yet: their outputs are zero."""
        out_factor = terms.factors[0]
        count = out_factor.shape[1]
        new = [factor[:, count:rank].to(out_factor) for factor in self._noisy]
        new.insert(0, out_factor.new_zeros(len(out_factor), rank - count))
        factors = [torch.cat(parts, 1) for parts in zip(terms.factors, new, strict=True)]
        return Terms(factors, terms.error)

    @cached_property
    def _start_double(self) -> Factors:
        return _start(self._unit)

    @cached_property
    def _start_single(self) -> Factors:
        return _start(self._unit.float())

    @cached_property
    def _noisy(self) -> Factors:
        """All but the output factor of the start, with as much noise; the same each time."""
        generator = torch.Generator().manual_seed(0)
        noisy = []
        for factor in self._start_single[1:]:
            noise = torch.randn(factor.shape, generator=generator).to(factor)
            noisy.append(factor + noise * factor.norm(dim=0) / math.sqrt(len(factor)))
        return noisy

    @cached_property
    def _matrix(self) -> Tensor:
        """(o, k * i)"""
        return self._unit.flatten(2).transpose(1, 2).flatten(1)

    @cached_property
    def _single(self) -> Tensor:
        return self._matrix.float()

    def _descend(self, terms: Terms, sweeps: int, ridge: float) -> tuple[Terms, bool]:
        """Sweeps until they stall; False where the terms would have grown too large."""
        kept, error = terms.factors, terms.error
        begin = kept
        for _ in range(sweeps):
            matrix = self._single if error > SINGLE * self._unit_energy else self._matrix
            swept, after = self._sweep(matrix, [factor.to(matrix) for factor in begin], ridge)
            if after > error and begin is not kept:
                begin = kept  # too far
                continue
            if energy(swept) > MOST_ENERGY * self._unit_energy:
                return Terms(kept, error), False
            begin = [new + FURTHER * (new - old) for new, old in zip(swept, kept, strict=True)]
            kept, before, error = swept, error, after
            if before - after <= STALLED * before:
                break
        return Terms(kept, error), True

    def _sweep(self, matrix: Tensor, factors: Factors, ridge: float) -> tuple[Factors, float]:
        """Each factor once, and the squared error after.

        Args:
            matrix: the kernel, (o, k * i).
            factors: of its precision.
            ridge: of the mean diagonal of the normal equations.
        """
        out_factor, in_factor, *places = factors
        grams = grams_of(factors)
        cross = matrix @ khatri_rao([*places, in_factor])
        out_factor, _ = regression(product(grams[1:]), cross, out_factor, ridge)
        grams[0] = out_factor.T @ out_factor

        seen = (matrix.T @ out_factor).reshape(-1, *in_factor.shape)  # (k, i, r)
        cross = (seen * khatri_rao(places)[:, None]).sum(0)
        in_factor, _ = regression(product([grams[0], *grams[2:]]), cross, in_factor, ridge)
        grams[1] = in_factor.T @ in_factor

        at_places = (seen * in_factor).sum(1).reshape(*map(len, places), -1)
        for axis in range(len(places)):
            gram = product([*grams[: axis + 2], *grams[axis + 3 :]])
            cross = at_places.movedim(axis, 0).reshape(len(places[axis]), -1, len(gram))
            if others := [*places[:axis], *places[axis + 1 :]]:
                cross = cross * khatri_rao(others)
            cross = cross.sum(1)
            places[axis], _ = regression(gram, cross, places[axis], ridge)
            grams[axis + 2] = places[axis].T @ places[axis]
        fitted = product(grams).sum(dtype=torch.float64)
        gain = 2 * (cross * places[-1]).sum(dtype=torch.float64) - fitted
        return balanced([out_factor, in_factor, *places]), self._unit_energy - float(gain)


def _start(kernel: Tensor) -> Factors:
    """All terms of the SVD of each place, in the eigenbasis of the places, largest first."""
    size = kernel.shape[2:]
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
