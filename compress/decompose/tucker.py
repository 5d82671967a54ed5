"""Tucker-2: a kernel as a small core between two channel factors.

Plain: higher-order orthogonal iteration, see `compress.decompose.hooi`. In the norm of the data:
given the input factor, the best output factor and core are a reduced-rank regression (Izenman,
"Reduced-Rank Regression for the Multivariate Linear Model", 1975); given those, the input factor
is a least squares problem; the two alternate, from the truncated HOSVD (De Lathauwer et al., "A
Multilinear Singular Value Decomposition", 2000) or its counterpart for whitened inputs.

Letters: k and l, the places of a flattened kernel; p, ranks out; q and s, ranks in.
"""

from functools import cached_property

from torch import Tensor

from compress.decompose.hooi import Factors, Hooi
from compress.decompose.linalg import (
    check_ranks,
    exact,
    exact_metric,
    falling_eigenvectors,
    unfold,
)
from compress.decompose.reduction import NestedFits, Problem, Reduced
from compress.equivalent import relative

SWEEPS = 1
STEPS = 2  # of conjugate gradients, in each sweep


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
        used = exact_metric(metric, weight)
        self._problem = None if used is None else Problem(self._kernel, used)
        self._plain = Hooi(self._kernel)
        self._latest: tuple[tuple[int, ...], Factors, float] | None = None

    def factors(self, ranks: tuple[int, ...]) -> Factors:
        """Input factor (R_in, I), core (R_out, R_in, kh, kw) and output factor (O, R_out).

        In the norm of the metric never worse than the plain decomposition, which is never worse
        than the truncated HOSVD.

        Args:
            ranks: (R_out, R_in).

        Raises:
            RankError: a rank lies outside 1 to (O, I).
        """
        (in_factor, core, out_factor), _ = self._fit(ranks)
        return in_factor.T, core.reshape(*core.shape[:2], *self._size), out_factor

    def error(self, ranks: tuple[int, ...]) -> float:
        """Squared relative output error of `factors`, in the norm of the metric."""
        _, error = self._fit(ranks)
        return relative(max(error, 0.0), self._energy)

    def _fit(self, ranks: tuple[int, ...]) -> tuple[Factors, float]:
        """Factors and squared error; the latest ones are kept, to be asked for both."""
        check_ranks(ranks, tuple(self._kernel.shape[:2]))
        if self._latest is None or self._latest[0] != ranks:
            rank_out, rank_in = ranks
            plain, error = self._plain.fit((rank_out, rank_in))
            if self._problem is None:
                self._latest = ranks, plain, error
            else:
                fit = self._fitted(self._problem, plain)
                assert fit.out_factor is not None
                factors = fit.in_factor, fit.core, fit.out_factor
                self._latest = ranks, factors, self._energy + fit.loss
        return self._latest[1:]

    @cached_property
    def _energy(self) -> float:
        """The squared outputs of the kernel itself."""
        return self._plain.energy if self._problem is None else self._problem.energy

    @cached_property
    def _nested(self) -> tuple[NestedFits, NestedFits]:
        """From the inputs that hold most of the kernel, and from those that hold most of its
        outputs."""
        problem, inputs = self._problem, unfold(self._kernel, 1)
        assert problem is not None
        _, in_basis = falling_eigenvectors(inputs @ inputs.T)
        return NestedFits(problem, in_basis), NestedFits(problem, problem.whitened_basis)

    def _fitted(self, problem: Problem, plain: Factors) -> Reduced:
        """The better of two starts improved; or the plain fit, where it is still better."""
        _, core, outputs = plain
        start = min((nest.first(core.shape[1], outputs) for nest in self._nested), key=_loss)
        fits = (problem.improved(start, SWEEPS, STEPS), problem.rated(plain))
        return min(fits, key=_loss)


def _loss(fit: Reduced) -> float:
    return fit.loss
