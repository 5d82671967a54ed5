"""Hierarchical Tucker: a matrix whose outputs and inputs are folded into two modes each.

Hackbusch and Kühn, "A New Scheme for the Tensor Representation", 2009, for the binary tree
{{m1, m2}, {n1, n2}}: a frame for each of the four modes, and between them a matrix of low rank,
which holds both transfer tensors and the root.
Plain: frames of the four unfoldings, then the root, as in Grasedyck, "Hierarchical Singular Value
Decomposition of Tensors", 2010. In the norm of the data the frames of the outputs are those of
the outputs themselves, those of the inputs are found as if the metric were a Kronecker product;
what stands between the frames is then a reduced-rank regression (Izenman, 1975) on the metric
itself.

Letters: m and n, modes of outputs and inputs; s and r, their ranks.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from compress.decompose.folds import balanced
from compress.decompose.linalg import (
    RIDGE,
    check_ranks,
    cholesky,
    exact,
    exact_metric,
    falling_eigenvectors,
    kronecker_likelihood,
    regression,
    unfold,
)
from compress.decompose.svd import output_basis
from compress.equivalent import relative

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Tree:
    """One fit; the loss is the squared output error less that of a weight of zeros."""

    out_frames: Pair  # (m1, s1), (m2, s2), orthonormal columns
    expand: Tensor  # (s1 s2, R)
    reduce: Tensor  # (R, r1 r2)
    in_frames: Pair  # (n1, r1), (n2, r2), orthonormal columns
    loss: float


class HierarchicalTucker:
    """Any ranks of one matrix; the eigendecompositions of the modes are shared.

    Args:
        weight: (O, I).
        metric: second moment (I, I) of the inputs, or None.

    Raises:
        CompressError: the weight or the metric is not finite, or they do not fit.
    """

    def __init__(self, weight: Tensor, metric: Tensor | None = None) -> None:
        self._weight = exact(weight)
        self._metric = exact_metric(metric, weight)
        self._outputs, self._inputs = balanced(weight.shape[0]), balanced(weight.shape[1])
        self._latest: tuple[tuple[int, ...], Tree] | None = None

    def factors(self, ranks: tuple[int, ...]) -> tuple[Tensor, ...]:
        """(R_1, n1), (R_2, n2), (R, R_1 R_2), (S_1 S_2, R), (m1, S_1) and (m2, S_2).

        In the norm of the metric never worse than the plain decomposition.

        Args:
            ranks: (R, S_1, S_2, R_1, R_2): of the root, of the outputs and of the inputs. A root
                rank that the others cannot fill is filled up with zeros.

        Raises:
            RankError: a rank lies outside 1 to `tree_limits`.
        """
        tree = self._fit(ranks)
        open_terms = ranks[0] - len(tree.reduce)
        reduce = torch.cat([tree.reduce, tree.reduce.new_zeros(open_terms, tree.reduce.shape[1])])
        expand = torch.cat([tree.expand, tree.expand.new_zeros(len(tree.expand), open_terms)], 1)
        first, second = tree.in_frames
        return first.T, second.T, reduce, expand, *tree.out_frames

    def error(self, ranks: tuple[int, ...]) -> float:
        """Squared relative output error of `factors`, in the norm of the metric."""
        return relative(max(self._energy + self._fit(ranks).loss, 0.0), self._energy)

    def _fit(self, ranks: tuple[int, ...]) -> Tree:
        """The latest one is kept: its error is asked for after its factors."""
        check_ranks(ranks, tree_limits(*self._weight.shape))
        if self._latest is None or self._latest[0] != ranks:
            fits = [self._between(*self._plain, ranks)]
            if self._metric is not None:
                fits.append(self._between(*self._white, ranks))
            self._latest = ranks, min(fits, key=lambda fit: fit.loss)
        return self._latest[1]

    @cached_property
    def _seen(self) -> Tensor:
        """The weight times the metric."""
        return self._weight if self._metric is None else self._weight @ self._metric

    @cached_property
    def _energy(self) -> float:
        return float((self._weight * self._seen).sum().clamp_min(0))

    @cached_property
    def _plain(self) -> tuple[Pair, Pair]:
        """All columns of the frames of outputs and inputs, by falling energy."""
        modes = self._weight.reshape(*self._outputs, *self._inputs)
        first, second, third, fourth = (_frame(modes, modes, mode) for mode in range(4))
        return (first, second), (third, fourth)

    @cached_property
    def _white(self) -> tuple[Pair, Pair]:
        """The same by the outputs that they hold; of the inputs, were the metric a product."""
        assert self._metric is not None
        sizes = *self._outputs, *self._inputs
        modes, seen = self._weight.reshape(sizes), self._seen.reshape(sizes)
        moments = kronecker_likelihood(self._metric, *self._inputs)
        roots = [cholesky(moment, RIDGE)[0] for moment in moments]
        white = torch.tensordot(modes, roots[1], 1)  # (m1, m2, n1, j)
        white = torch.tensordot(white, roots[0], ([2], [0])).movedim(-1, 2)
        return (
            (_frame(seen, modes, 0), _frame(seen, modes, 1)),
            (
                _unwhitened(roots[0], _frame(white, white, 2)),
                _unwhitened(roots[1], _frame(white, white, 3)),
            ),
        )

    def _between(self, out_frames: Pair, in_frames: Pair, ranks: tuple[int, ...]) -> Tree:
        """The leading columns of the frames, and the best of the root's rank between them.

        Never worse than the weight projected on the frames and cut to the root's rank: the start
        of the regression.
        """
        root, *leaves = ranks
        outs = out_frames[0][:, : leaves[0]], out_frames[1][:, : leaves[1]]
        ins = in_frames[0][:, : leaves[2]], in_frames[1][:, : leaves[3]]
        basis = output_basis(_within(_within(self._weight, outs).T, ins).T)
        root = min(root, len(basis.energies))
        expand, reduce = basis.out_factor[:, :root], basis.in_factor[:root]
        if self._metric is None:
            return Tree(outs, expand, reduce, ins, -float(basis.energies[:root].sum()))
        gram = _within(_within(self._metric, ins).T, ins)
        cross = _within(_within(self._seen, outs).T, ins).T
        start = expand @ reduce
        fitted, shift = regression(gram, cross, start)
        outputs = cross + shift * start  # fitted (gram + shift)
        expand = falling_eigenvectors(outputs @ fitted.T)[1][:, :root]
        reduce, seen, start = (expand.T @ each for each in (fitted, cross, start))
        loss = float((reduce * (shift * (start - reduce) - seen)).sum())
        return Tree(outs, expand, reduce, ins, loss)


def _frame(left: Tensor, right: Tensor, mode: int) -> Tensor:
    """Orthonormal columns, those of the most energy first, of one mode of two like tensors."""
    gram = unfold(left, mode) @ unfold(right, mode).T
    return falling_eigenvectors((gram + gram.T) / 2)[1]


def _unwhitened(root: Tensor, frame: Tensor) -> Tensor:
    """The frame before whitening by a Cholesky factor; the leading columns span what they did."""
    basis, _ = torch.linalg.qr(torch.linalg.solve_triangular(root.T, frame, upper=True))
    return basis


def _within(matrix: Tensor, frames: Pair) -> Tensor:
    """The rows (n1 n2, ...) seen from within the frames, (r1 r2, ...)."""
    first, second = frames
    rows = torch.tensordot(first, matrix.reshape(len(first), len(second), -1), ([0], [0]))
    rows = torch.tensordot(second, rows, ([0], [1])).transpose(0, 1)
    return rows.flatten(0, 1)


def tree_limits(outputs: int, inputs: int) -> tuple[int, int, int, int, int]:
    """The ranks (R, S_1, S_2, R_1, R_2) at which the tree holds every matrix (O, I)."""
    return min(outputs, inputs), *balanced(outputs), *balanced(inputs)
