"""CP decomposition: a kernel as a sum of R outer products, over its channels and places.

Alternating least squares (Kolda and Bader, "Tensor Decompositions and Applications", 2009,
section 3.4), from a start that is exact at full rank: the kernel is turned into the
eigenbasis of its places, each place then is a matrix, and the R largest terms of the SVDs of
these matrices are kept. They are orthogonal, so none cancels another; sweeps end before the
terms together hold more than `MOST_ENERGY` times the energy of the kernel (terms that cancel
each other are known as degeneracy).

Letters: o, i, channels out and in; h, w, places, flattened k; r, terms.
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
    unfold,
)
from compress.decompose.svd import output_basis

SWEEPS = 15
STALLED = 1e-3  # of the squared error: a sweep that gains less is the last
RIDGE = 1e-4  # of the mean diagonal
MOST_ENERGY = 100.0  # terms 10 times the kernel: one decimal digit lost where they cancel
WEIGHTED_SWEEPS = 2  # after a first fit of the output factor
STEPS = 4  # of conjugate gradients, in each weighted sweep

Factors = list[Tensor]  # (o, r), (i, r), then one for each axis of places


class Cp:
    """Every rank of one kernel; the start is shared.

    Args:
        weight: (O, I, kh, kw).
        metric: second moment (D, D) of the patches, D = I * kh * kw, or None.
        separable: a vertical and a horizontal factor (CP-4) in place of one over all places
            (CP-3).

    Raises:
        CompressError: the weight or the metric is not finite, or they do not fit.
    """

    def __init__(
        self, weight: Tensor, metric: Tensor | None = None, *, separable: bool = False
    ) -> None:
        kernel = exact(weight)
        self._kernel = kernel if separable else kernel.flatten(2)
        self._metric = exact_metric(metric, weight)
        self._energy = float(kernel.square().sum())

    def factors(self, ranks: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Input factor (R, I), then (R, kh * kw) or (R, kh) and (R, kw), output factor (O, R).

        In the norm of the metric never worse than the plain decomposition.

        Raises:
            RankError: the rank is not between 1 and kh * kw * min(O, I), where the
                decomposition is exact.
        """
        check_ranks(ranks, (self._start[0].shape[1],))
        (rank,) = ranks
        factors = self._plain([factor[:, :rank] for factor in self._start])
        if self._metric is not None:
            factors = self._weighted(factors)
        out_factor, *rest = factors
        return *(factor.T for factor in rest), out_factor

    @cached_property
    def _start(self) -> Factors:
        """All terms of the SVD of each place, in the eigenbasis of the places, largest first."""
        kernel, size = self._kernel, self._kernel.shape[2:]
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
        return _balanced(
            [
                torch.cat([term.out_factor for term in terms], 1)[:, largest],
                torch.cat([term.in_factor for term in terms])[largest].T,
                *(basis[:, place] for basis, place in zip(bases, places, strict=True)),
            ]
        )

    def _plain(self, factors: Factors) -> Factors:
        """Alternating least squares until it stalls, or the terms would grow too large."""
        error = self._energy
        for _ in range(SWEEPS):
            swept, after = self._sweep(factors)
            if _energy(swept) > MOST_ENERGY * self._energy:
                break
            factors, before, error = swept, error, after
            if before - after <= STALLED * before:
                break
        return factors

    def _sweep(self, factors: Factors) -> tuple[Factors, float]:
        """Each factor once, and the squared error after."""
        out_factor, in_factor, *places = factors
        outputs, inputs = self._kernel.shape[:2]
        matrix = self._kernel.reshape(outputs, -1)
        cross = matrix @ khatri_rao([in_factor, *places])
        out_factor, _ = regression(_gram([in_factor, *places]), cross, out_factor, RIDGE)

        seen = (out_factor.T @ matrix).reshape(out_factor.shape[1], inputs, -1)  # (r, i, k)
        cross = torch.einsum("rik,kr->ir", seen, khatri_rao(places))
        in_factor, _ = regression(_gram([out_factor, *places]), cross, in_factor, RIDGE)

        seen = torch.einsum("rik,ir->rk", seen, in_factor)
        seen = seen.reshape(len(seen), *self._kernel.shape[2:])
        for axis in range(len(places)):
            others = [*places[:axis], *places[axis + 1 :]]
            cross = seen.movedim(axis + 1, 0).reshape(len(places[axis]), len(seen), -1)
            cross = (cross * khatri_rao(others).T).sum(2) if others else cross.squeeze(2)
            gram = _gram([out_factor, in_factor, *others])
            places[axis], _ = regression(gram, cross, places[axis], RIDGE)
        fitted = [out_factor, in_factor, *places]
        error = self._energy - float(2 * (cross * places[-1]).sum() - _gram(fitted).sum())
        return _balanced(fitted), error

    def _weighted(self, factors: Factors) -> Factors:
        """The channel factors fitted in the norm of the metric, from the plain ones."""
        for sweep in range(1 + WEIGHTED_SWEEPS):
            fitted = self._fit_outputs(self._fit_inputs(factors) if sweep else factors)
            if _energy(fitted) > MOST_ENERGY * self._energy:
                break
            factors = fitted
        return _balanced(factors)

    @cached_property
    def _cross(self) -> Tensor:
        """The kernel times the metric, (o, (i, k))."""
        assert self._metric is not None
        return self._kernel.flatten(1) @ self._metric

    def _fit_outputs(self, factors: Factors) -> Factors:
        """The best output factor for the others."""
        assert self._metric is not None
        terms = khatri_rao(factors[1:])
        gram = terms.T @ (self._metric @ terms)
        fitted, _ = regression(gram, self._cross @ terms, factors[0])
        return [fitted, *factors[1:]]

    def _fit_inputs(self, factors: Factors) -> Factors:
        """A better input factor for the others."""
        metric = self._metric
        assert metric is not None
        out_factor, in_factor, *places = factors
        kernel = khatri_rao(places)  # (k, r)
        basis, triangle = torch.linalg.qr(out_factor)  # as few outputs as there are terms
        along, across = kronecker_factors(metric, len(in_factor), len(kernel))

        def outputs_of(direction: Tensor) -> Tensor:
            return triangle @ khatri_rao([direction, kernel]).T

        def inputs_of(outputs: Tensor) -> Tensor:
            seen = (triangle.T @ outputs).reshape(-1, *self._kernel.flatten(2).shape[1:])
            return torch.einsum("rik,kr->ir", seen, kernel)

        fitted = conjugate_gradient(
            lambda direction: inputs_of(outputs_of(direction) @ metric),
            inputs_of(basis.T @ self._cross),
            in_factor,
            (along, _gram([out_factor]) * (kernel.T @ across @ kernel)),
            STEPS,
        )
        return [out_factor, fitted, *places]


def khatri_rao(factors: Factors) -> Tensor:
    """The columns' Kronecker products, (product of the sizes, r)."""
    product = factors[0]
    for factor in factors[1:]:
        product = (product[:, None] * factor).flatten(0, 1)
    return product


def _gram(factors: Factors) -> Tensor:
    """Inner products (r, r) of the columns of the Khatri-Rao product."""
    gram = factors[0].T @ factors[0]
    for factor in factors[1:]:
        gram = gram * (factor.T @ factor)
    return gram


def _energy(factors: Factors) -> float:
    """The sum of the terms' own energies: that of the tensor where they are orthogonal."""
    return float(_gram(factors).diagonal().sum())


def _balanced(factors: Factors) -> Factors:
    """Each term spread evenly over the factors; a term of zero stays zero."""
    norms = torch.stack([factor.norm(dim=0) for factor in factors])
    share = norms.prod(0) ** (1 / len(factors))
    tiny = torch.finfo(norms.dtype).tiny
    scales = share / norms.clamp_min(tiny)
    return [factor * scale for factor, scale in zip(factors, scales, strict=True)]
