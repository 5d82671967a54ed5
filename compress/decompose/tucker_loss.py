"""The error of a Tucker-2 in the norm of the data, and the two steps that lower it.

Given the input factor, the best output factor and core are a reduced-rank regression (Izenman,
"Reduced-Rank Regression for the Multivariate Linear Model", 1975); given those, the input factor
is a least squares problem.

Letters: k and l, the places of a flattened kernel; p, ranks out; q and s, ranks in.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from compress.decompose.linalg import (
    conjugate_gradient,
    falling_eigenvectors,
    kronecker_factors,
    regression,
)

Factors = tuple[Tensor, Tensor, Tensor]  # in_factor (i, q), core (p, q, k), out_factor (o, p)


@dataclass(frozen=True)
class TuckerLoss:
    """The squared error of the outputs of one kernel (o, i, k), up to a constant."""

    cross: Tensor  # the kernel times the metric, (o, i, k)
    metric: Tensor | None  # second moment (i * k, i * k) of the patches; None: the plain norm

    @classmethod
    def of(cls, kernel: Tensor, metric: Tensor | None) -> Self:
        """For a kernel (o, i, k), all in float64."""
        return cls(_image(kernel, metric), metric)

    @cached_property
    def traces(self) -> tuple[Tensor, Tensor]:
        """Second moments over inputs (i, i) and places (k, k)."""
        _, inputs, places = self.cross.shape
        if self.metric is None:
            return torch.eye(inputs).to(self.cross), torch.eye(places).to(self.cross)
        return kronecker_factors(self.metric, inputs, places)

    def image(self, kernel: Tensor) -> Tensor:
        """A kernel (..., i, k) times the metric."""
        return _image(kernel, self.metric)

    def without(self, factors: Factors) -> "TuckerLoss":
        """The same for what a Tucker-2 leaves of the kernel."""
        return replace(self, cross=self.cross - self._image_of(factors))

    def restored(self, factors: Factors) -> "TuckerLoss":
        """The same with a Tucker-2 added to the kernel."""
        return replace(self, cross=self.cross + self._image_of(factors))

    def _image_of(self, factors: Factors) -> Tensor:
        in_factor, core, out_factor = factors
        image = self.image(torch.einsum("iq,pqk->pik", in_factor, core))
        return torch.einsum("op,pik->oik", out_factor, image)

    def within(self, basis: Tensor) -> "TuckerLoss":
        """The same for kernels whose inputs lie in the span of an orthonormal `basis` (i, q)."""
        _, inputs, places = self.cross.shape
        cross = torch.einsum("oik,iq->oqk", self.cross, basis)
        if self.metric is None:
            return TuckerLoss(cross, None)
        half = (basis.T @ self.metric.reshape(inputs, -1)).reshape(-1, inputs, places)
        size = basis.shape[1] * places
        metric = torch.einsum("xil,is->xsl", half, basis).reshape(size, size)
        return TuckerLoss(cross, metric)

    def fit_outputs(self, factors: Factors) -> tuple[Factors, float]:
        """The best output factor and core for the input factor; the loss."""
        places, rank_out = self.cross.shape[2], factors[2].shape[1]
        in_factor, triangle = torch.linalg.qr(factors[0])
        within = self.within(in_factor)
        cross = within.cross.flatten(1)
        unlimited, outputs = cross, cross
        shift = 0.0
        if within.metric is not None:
            start = torch.einsum("op,psk,qs->oqk", factors[2], factors[1], triangle).flatten(1)
            unlimited, shift = regression(within.metric, cross, start)
            outputs = cross + shift * start  # unlimited (metric + shift)
        out_factor = falling_eigenvectors(outputs @ unlimited.T)[1][:, :rank_out]
        core, outputs, cross = (out_factor.T @ each for each in (unlimited, outputs, cross))
        loss = float((core * (outputs - shift * core - 2 * cross)).sum())
        return (in_factor, core.reshape(rank_out, -1, places), out_factor), loss

    def fit_inputs(self, factors: Factors, steps: int) -> Factors:
        """A better input factor for the core and the orthonormal output factor."""
        in_factor, core, out_factor = factors
        along, across = self.traces

        def outputs_of(direction: Tensor) -> Tensor:
            return torch.einsum("iq,pqk->pik", direction, core)

        def inputs_of(outputs: Tensor) -> Tensor:
            return torch.einsum("pik,pqk->iq", outputs, core)

        def apply(direction: Tensor) -> Tensor:
            return inputs_of(self.image(outputs_of(direction)))

        fitted = conjugate_gradient(
            apply,
            inputs_of(torch.einsum("oik,op->pik", self.cross, out_factor)),
            in_factor,
            (along, torch.einsum("pqk,kl,psl->qs", core, across, core)),
            steps,
        )
        return fitted, core, out_factor


def product(factors: Factors) -> Tensor:
    """The kernel (o, i, k) that the factors stand for."""
    in_factor, core, out_factor = factors
    return torch.einsum("op,pik->oik", out_factor, torch.einsum("iq,pqk->pik", in_factor, core))


def _image(kernel: Tensor, metric: Tensor | None) -> Tensor:
    return kernel if metric is None else (kernel.flatten(1) @ metric).reshape(kernel.shape)
