"""Tensor train: a kernel as a chain over inputs, rows, columns and outputs.

Plain: the truncated SVD of the outer modes, then of the middle of what is left, then of the
outputs once more (Oseledets, "Tensor-Train Decomposition", 2011, cuts from one end to the other;
his bound, the sum of the squares cut, holds here too).
In the norm of the data: seen from within the inputs that the first factor keeps, a train is a
Tucker-2 over (inputs, rows) and columns; so the steps of Tucker-2 fit one part after the other.

Letters: i and o, channels; h and w, rows and columns of the kernel; q, r and p, the ranks from
inputs to outputs.
"""

from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.decompose.linalg import (
    SINGLE,
    check_ranks,
    exact,
    exact_metric,
    falling_eigenvectors,
    kronecker_factors,
    roots,
    unfold,
)
from compress.decompose.svd import output_basis
from compress.decompose.tucker_loss import TuckerLoss
from compress.equivalent import relative

SWEEPS = 1
STEPS = 3  # of conjugate gradients for each of two factors, in each sweep


@dataclass(frozen=True, slots=True)
class Train:
    """The four parts; the product over the ranks is the kernel (o, i, h, w)."""

    first: Tensor  # (i, q)
    vertical: Tensor  # (q, h, r)
    horizontal: Tensor  # (p, r, w)
    last: Tensor  # (o, p)


class TensorTrain:
    """Every triple of ranks of one kernel; the eigendecompositions of the channels are shared.

    Args:
        weight: (O, I, kh, kw).
        metric: second moment (D, D) of the patches, D = I * kh * kw, or None.

    Raises:
        CompressError: the weight or the metric is not finite, or they do not fit.
    """

    def __init__(self, weight: Tensor, metric: Tensor | None = None) -> None:
        kernel = exact(weight)
        # In float32 the squares of what is small would be zero.
        self._scale = float(kernel.abs().amax()) or 1.0
        self._kernel = kernel / self._scale
        self._loss = TuckerLoss.of(self._kernel.flatten(2), exact_metric(metric, weight))

    def factors(self, ranks: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(R_in, I), vertical (R, R_in, kh), horizontal (R_out, R, kw) and (O, R_out).

        In the norm of the metric never worse than the plain decomposition. A middle rank above
        kh * R_in is filled up with zeros.

        Args:
            ranks: (R_in, R, R_out).

        Raises:
            RankError: a rank lies outside 1 to that of its unfolding of the kernel.
        """
        check_ranks(ranks, train_limits(*self._kernel.shape))
        rank_in, rank, rank_out = ranks
        used = (rank_in, min(rank, rank_in * self._kernel.shape[2]), rank_out)
        train = self._cut(used) if self._loss.metric is None else self._fitted(used)
        open_terms = rank - used[1]
        return (
            train.first.T,
            F.pad(train.vertical.permute(2, 0, 1), (0, 0, 0, 0, 0, open_terms)),
            F.pad(train.horizontal, (0, 0, 0, open_terms)),
            train.last * self._scale,
        )

    @cached_property
    def _single(self) -> "_Cuts":
        return _Cuts(self._kernel.float())

    @cached_property
    def _double(self) -> "_Cuts":
        return _Cuts(self._kernel)

    def _cut(self, ranks: tuple[int, int, int]) -> Train:
        """The plain train, its last cut made anew within what the others keep."""
        train, share = self._single.fit(ranks)
        if share <= SINGLE:
            return self._double.fit(ranks)[0]
        return Train(*(getattr(train, part.name).double() for part in fields(train)))

    @cached_property
    def _whitening(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Roots and inverse roots over i, h and w, as if the metric were their product."""
        along, across = self._loss.traces
        moments = (along, *kronecker_factors(across, *self._kernel.shape[2:]))
        return tuple(roots(moment) for moment in moments)

    @cached_property
    def _white(self) -> "_Cuts":
        """Optimal, cut by cut, were the metric a product over inputs, rows and columns."""
        (inputs, _), (rows, _), (columns, _) = self._whitening
        return _Cuts(torch.einsum("oihw,ij,hk,wl->ojkl", self._kernel, inputs, rows, columns))

    def _whitened(self, ranks: tuple[int, int, int]) -> Train:
        train = self._white.cut(ranks)
        (_, inputs), (_, rows), (_, columns) = self._whitening
        return Train(
            inputs @ train.first,
            torch.einsum("qhr,hk->qkr", train.vertical, rows),
            train.horizontal @ columns,
            train.last,
        )

    def _fitted(self, ranks: tuple[int, int, int]) -> Train:
        starts = (self._cut(ranks), self._whitened(ranks))
        train, _ = min(
            (_fit_rest(self._loss, start, 0) for start in starts), key=lambda fit: fit[1]
        )
        for _ in range(SWEEPS):
            train, _ = _fit_rest(self._loss, self._fit_first(train), STEPS)
        return train

    def _fit_first(self, train: Train) -> Train:
        """A better first part for the others."""
        middle = torch.einsum("qhr,prw->pqhw", train.vertical, train.horizontal)
        first, _, _ = self._loss.fit_inputs((train.first, middle.flatten(2), train.last), STEPS)
        return Train(first, train.vertical, train.horizontal, train.last)


def _fit_rest(loss: TuckerLoss, train: Train, steps: int) -> tuple[Train, float]:
    """All but the first part: the vertical one in `steps`, then the best of the others."""
    _, height, rank = train.vertical.shape
    first, triangle = torch.linalg.qr(train.first)
    vertical = torch.einsum("qs,shr->qhr", triangle, train.vertical).flatten(0, 1)
    within = loss.within(first)
    width = train.horizontal.shape[2]
    rows = replace(within, cross=within.cross.reshape(len(train.last), -1, width))
    factors = (vertical, train.horizontal, train.last)
    if steps:
        factors = rows.fit_inputs(factors, steps)
    (vertical, horizontal, last), error = rows.fit_outputs(factors)
    return Train(first, vertical.reshape(-1, height, rank), horizontal, last), error


class _Cuts:
    """The plain train of one kernel (o, i, h, w) at any ranks."""

    def __init__(self, kernel: Tensor) -> None:
        self._loss = TuckerLoss.of(kernel.flatten(2), None)
        self._energy = float(kernel.square().sum(dtype=torch.float64))
        last, first = (
            falling_eigenvectors(matrix @ matrix.T)[1]
            for matrix in (unfold(kernel, 0), unfold(kernel, 1))
        )
        self._first, self._last = first, last
        self._core = torch.einsum("oihw,iq,op->qhwp", kernel, first, last)

    def fit(self, ranks: tuple[int, int, int]) -> tuple[Train, float]:
        """The last cut made anew within what the others keep; the share of energy left."""
        train, loss = _fit_rest(self._loss, self.cut(ranks), 0)
        return train, relative(max(self._energy + loss, 0.0), self._energy)

    def cut(self, ranks: tuple[int, int, int]) -> Train:
        """All cuts made in the kernel itself."""
        rank_in, rank, rank_out = ranks
        core = self._core[:rank_in, :, :, :rank_out]
        _, height, width, _ = core.shape
        middle = output_basis(core.flatten(2).flatten(0, 1))
        open_terms = max(0, rank - len(middle.energies))
        vertical = F.pad(middle.out_factor[:, :rank], (0, open_terms))
        horizontal = F.pad(middle.in_factor[:rank], (0, 0, 0, open_terms))
        return Train(
            self._first[:, :rank_in],
            vertical.reshape(rank_in, height, rank),
            horizontal.reshape(rank, width, rank_out).permute(2, 0, 1),
            self._last[:, :rank_out],
        )


def train_limits(outputs: int, inputs: int, height: int, width: int) -> tuple[int, int, int]:
    """The ranks (R_in, R, R_out) at which a train holds every kernel (O, I, kh, kw)."""
    return (
        min(inputs, height * width * outputs),
        min(inputs * height, width * outputs),
        min(inputs * height * width, outputs),
    )
