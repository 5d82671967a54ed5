"""CP decomposition: a kernel as a sum of R outer products, over its channels and places.

Plain: alternating least squares, see `compress.decompose.als`. In the norm of the data the
channel factors are fitted again, the output factor exactly, the input factor by conjugate
gradients, from the better of two starts: the plain one, and the one that is best were the metric
a Kronecker product over inputs and places.

Letters: o, i, channels out and in; h, w, places, flattened k; r, terms.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from compress.decompose import als
from compress.decompose.als import Als
from compress.decompose.linalg import (
    RIDGE,
    check_ranks,
    cholesky,
    conjugate_gradient_through,
    exact,
    exact_metric,
    kronecker_likelihood,
    regression,
)
from compress.decompose.terms import Factors, balanced, energy, khatri_rao
from compress.equivalent import relative
from compress.errors import DegenerateError

WEIGHTED_SWEEPS = 2  # after a first fit of the output factor
STEPS = 1  # of conjugate gradients, in each weighted sweep


@dataclass(frozen=True, slots=True)
class _Fit:
    factors: Factors
    half: Tensor  # the metric times the Khatri-Rao product of all but the output factor
    loss: float  # squared output error less that of a kernel of zeros


class Cp:
    """Every rank of one kernel; the starts are shared.

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
        self._als = Als(kernel if separable else kernel.flatten(2))
        self._metric = exact_metric(metric, weight)
        self._latest: tuple[int, Factors, float] | None = None

    def factors(self, ranks: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Input factor (R, I), then (R, kh * kw) or (R, kh) and (R, kw), output factor (O, R).

        In the norm of the metric never worse than the plain decomposition.

        Raises:
            RankError: the rank is not between 1 and kh * kw * min(O, I), where the
                decomposition is exact.
            DegenerateError: its terms grow to cancel each other.
        """
        (out_factor, *rest), _ = self._fit(ranks)
        return *(factor.T for factor in rest), out_factor

    def error(self, ranks: tuple[int, ...]) -> float:
        """Squared relative output error of `factors`, in the norm of the metric."""
        _, error = self._fit(ranks)
        return relative(max(error, 0.0), self._energy)

    def _fit(self, ranks: tuple[int, ...]) -> tuple[Factors, float]:
        """Factors and squared error; the latest ones are kept, to be asked for both."""
        check_ranks(ranks, (self._als.most_terms,))
        (rank,) = ranks
        if self._latest is None or self._latest[0] != rank:
            plain = self._als.fit(rank)
            if self._metric is None:
                self._latest = rank, plain.factors, plain.error
            else:
                factors, loss = self._weighted(plain.factors)
                self._latest = rank, factors, self._energy + loss
        return self._latest[1:]

    @cached_property
    def _energy(self) -> float:
        """The squared outputs of the kernel itself."""
        if self._metric is None:
            return self._als.energy
        return float((self._als.kernel.flatten(1) * self._cross).sum().clamp_min(0))

    def _weighted(self, plain: Factors) -> tuple[Factors, float]:
        """The channel factors fitted in the norm of the metric, and their loss."""
        fits = [self._fit_outputs(plain, self._half(plain[1:]))]
        if (white := self._whitened(plain[0].shape[1])) is not None:
            fits.append(self._fit_outputs(white, self._half(white[1:])))
        bounded = [fit for fit in fits if self._is_bounded(fit.factors)]
        if not bounded:
            out_factor, *rest = plain
            terms = khatri_rao(rest)
            outputs = out_factor @ (terms.T @ fits[0].half) - 2 * self._cross @ terms
            return plain, float((outputs * out_factor).sum())
        fit = min(bounded, key=lambda fit: fit.loss)
        for _ in range(WEIGHTED_SWEEPS):
            swept = self._fit_outputs(*self._fit_inputs(fit))
            if not self._is_bounded(swept.factors):
                break
            fit = swept
        return balanced(fit.factors), fit.loss

    def _is_bounded(self, factors: Factors) -> bool:
        return energy(factors) <= als.MOST_ENERGY * self._als.energy

    @cached_property
    def _kronecker(self) -> tuple[Tensor, Tensor]:
        assert self._metric is not None
        _, inputs, *_ = self._als.kernel.shape
        return kronecker_likelihood(self._metric, inputs, len(self._metric) // inputs)

    @cached_property
    def _roots(self) -> list[Tensor]:
        """Cholesky factors of the metric's Kronecker factors, one for each mode but the first."""
        along, across = self._kronecker
        moments = [along]
        for length in self._als.kernel.shape[2:-1]:
            axis, across = kronecker_likelihood(across, length, len(across) // length)
            moments.append(axis)
        return [cholesky(moment, RIDGE)[0] for moment in (*moments, across)]

    @cached_property
    def _white(self) -> Als:
        """The kernel in coordinates in which the inputs would be white."""
        kernel = self._als.kernel
        for root in self._roots:
            kernel = torch.tensordot(kernel, root, ([1], [0]))  # the next mode comes up
        return Als(kernel)

    def _whitened(self, rank: int) -> Factors | None:
        try:
            out_factor, *rest = self._white.fit(rank).factors
        except DegenerateError:
            return None
        back = (
            torch.linalg.solve_triangular(root.T, factor, upper=True)
            for root, factor in zip(self._roots, rest, strict=True)
        )
        return balanced([out_factor, *back])

    @cached_property
    def _cross(self) -> Tensor:
        """The kernel times the metric, (o, (i, k))."""
        assert self._metric is not None
        return self._als.kernel.flatten(1) @ self._metric

    def _half(self, inputs: Factors) -> Tensor:
        assert self._metric is not None
        return self._metric @ khatri_rao(inputs)

    def _fit_outputs(self, factors: Factors, half: Tensor) -> _Fit:
        """The best output factor for the others."""
        start, *rest = factors
        terms = khatri_rao(rest)
        cross = self._cross @ terms
        fitted, shift = regression(terms.T @ half, cross, start)
        # <fitted, fitted gram - 2 cross>, for fitted (gram + shift) = cross + shift start
        loss = float((fitted * (shift * (start - fitted) - cross)).sum())
        return _Fit([fitted, *rest], half, loss)

    def _fit_inputs(self, fit: _Fit) -> tuple[Factors, Tensor]:
        """A better input factor for the others, and the half of it."""
        out_factor, in_factor, *places = fit.factors
        kernel = khatri_rao(places)  # (k, r)
        outputs = out_factor.T @ out_factor
        along, across = self._kronecker

        def inputs_of(products: Tensor) -> Tensor:
            return (products.reshape(len(in_factor), *kernel.shape) * kernel).sum(1)

        fitted, half = conjugate_gradient_through(
            lambda direction: self._half([direction, kernel]),
            lambda product: inputs_of(product @ outputs),
            inputs_of(self._cross.T @ out_factor),
            (in_factor, fit.half),
            kronecker=(along, outputs * (kernel.T @ across @ kernel)),
            steps=STEPS,
        )
        return [out_factor, fitted, *places], half
