"""Spatial SVD: a kernel as a vertical one, kh x 1, followed by a horizontal one, 1 x kw.

Jaderberg et al., "Speeding up Convolutional Neural Networks with Low Rank Expansions", BMVC
2014 (their scheme 2). The plain optimum is a truncated SVD. In the norm of the data there is
no closed form: alternating least squares improves on the better of two truncated SVDs.

Letters: j = (i, h), the rows of a patch; w and v, its columns; r and s, ranks.
"""

from functools import cached_property

from torch import Tensor

from compress.decompose.linalg import check_ranks, exact, exact_metric
from compress.decompose.reduction import NestedFits, Problem, Reduced
from compress.decompose.svd import OutputBasis, output_basis
from compress.equivalent import relative

SWEEPS = 3
STEPS = 1  # of conjugate gradients, in each sweep

Kernels = tuple[Tensor, Tensor]  # vertical (j, r) and horizontal (o, r, w)


class SpatialSvd:
    """Every rank of one kernel; the eigendecompositions are shared.

    Args:
        weight: (O, I, kh, kw).
        metric: second moment (D, D) of the patches, D = I * kh * kw, or None.

    Raises:
        CompressError: the weight or the metric is not finite, or they do not fit.
    """

    def __init__(self, weight: Tensor, metric: Tensor | None = None) -> None:
        outputs, inputs, height, width = weight.shape
        self._shape = (outputs, inputs * height, width)
        self._inputs = (inputs, height)
        self._kernel = exact(weight).reshape(self._shape)
        used = exact_metric(metric, weight)
        self._problem = None if used is None else Problem(self._kernel, used)
        self._nests: dict[int, tuple[NestedFits, NestedFits]] = {}
        self._latest: tuple[int, Reduced] | None = None

    def factors(self, ranks: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Vertical (R, I, kh) and horizontal (O, R, kw) kernels.

        In the norm of the metric never worse than the plain truncated SVD.

        Raises:
            RankError: the rank is not between 1 and min(I * kh, O * kw).
        """
        rank = self._checked(ranks)
        if self._problem is None:
            vertical, horizontal = _cut(self._plain, rank)
        else:
            fit = self._fit(self._problem, rank)
            vertical, horizontal = fit.in_factor, fit.core
        return vertical.T.reshape(rank, *self._inputs), horizontal

    def error(self, ranks: tuple[int, ...]) -> float:
        """Squared relative output error of `factors`, in the norm of the metric."""
        rank = self._checked(ranks)
        if self._problem is None:
            energies = self._basis.energies
            return relative(float(energies[rank:].sum()), float(energies.sum()))
        loss = self._fit(self._problem, rank).loss
        return relative(max(self._problem.energy + loss, 0.0), self._problem.energy)

    def _checked(self, ranks: tuple[int, ...]) -> int:
        outputs, rows, width = self._shape
        check_ranks(ranks, (min(rows, outputs * width),))
        return ranks[0]

    @cached_property
    def _basis(self) -> OutputBasis:
        _, rows, _ = self._shape
        return output_basis(self._kernel.transpose(0, 1).reshape(rows, -1))

    @cached_property
    def _plain(self) -> Kernels:
        """All terms, by falling energy."""
        outputs, _, width = self._shape
        horizontal = self._basis.in_factor.reshape(-1, outputs, width).transpose(0, 1)
        return self._basis.out_factor, horizontal

    def _nested(self, problem: Problem, rank: int) -> tuple[NestedFits, NestedFits]:
        """From the rows that hold most of the kernel, and from those that hold most of its
        outputs: as many as may pay, or all."""
        outputs, rows, width = self._shape
        count = min(rows, outputs * width)
        paying = outputs * rows * width // (rows + outputs * width)
        if rank <= paying:
            count = paying
        if count not in self._nests:
            self._nests[count] = (
                NestedFits(problem, self._plain[0][:, :count]),
                NestedFits(problem, problem.whitened_basis[:, :count]),
            )
        return self._nests[count]

    def _fit(self, problem: Problem, rank: int) -> Reduced:
        """The latest one is kept: its error is asked for after its factors."""
        if self._latest is None or self._latest[0] != rank:
            starts = (nest.first(rank) for nest in self._nested(problem, rank))
            start = min(starts, key=lambda fit: fit.loss)
            self._latest = rank, problem.improved(start, SWEEPS, STEPS)
        return self._latest[1]


def _cut(kernels: Kernels, rank: int) -> Kernels:
    return kernels[0][:, :rank], kernels[1][:, :rank]
