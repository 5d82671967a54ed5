"""What the decompositions share: checks, eigenvectors and least squares."""

from collections.abc import Callable

import torch
from torch import Tensor

from compress.errors import CompressError, RankError, WeightsError

# Of the mean variance: directions that vary less stay where the start has them.
RIDGE = 1e-6
# Of the right-hand side: a smaller residual is round-off.
ROUND_OFF = 1e-12
# A shift for a Gram matrix of zeros, whose square root still is a normal number.
SMALLEST = 1e-200
# Of the largest variance: keeps the inverse root of a singular second moment finite.
FLOOR = 1e-6
# Of the energy: a fit that leaves more than this squared error may be sought in float32, whose
# round-off, 1e-14 when squared, is far below it.
SINGLE = 1e-4
FLIPS = 3  # a fourth changes the fits by less than 1e-3 of their error


def check_ranks(ranks: tuple[int, ...], limits: tuple[int, ...]) -> None:
    """Refuse ranks that the weight does not allow.

    Raises:
        RankError: another number of ranks, or one that is no integer from 1 to its limit.
    """
    fits = len(ranks) == len(limits) and all(
        type(rank) is int and 1 <= rank <= limit for rank, limit in zip(ranks, limits, strict=True)
    )
    if not fits:
        raise RankError(f"ranks {ranks} came; integers between 1 and {limits} were wanted")


def exact(weight: Tensor) -> Tensor:
    """`weight` in float64, apart from the graph of its gradient.

    Raises:
        WeightsError: a value is NaN or infinite.
    """
    if not bool(weight.isfinite().all()):
        raise WeightsError(
            f"a weight of shape {tuple(weight.shape)} holds NaN or infinite values; "
            "finite ones were wanted"
        )
    return weight.detach().double()


def exact_metric(metric: Tensor | None, weight: Tensor) -> Tensor | None:
    """The second moment (D, D) of the input patches of `weight` (O, ...), in float64.

    None, the plain norm, where nothing ever comes in: all inputs are then alike.

    Raises:
        CompressError: `metric` has another shape, or holds NaN or infinite values.
    """
    if metric is None:
        return None
    size = weight[0].numel()
    if tuple(metric.shape) != (size, size):
        raise CompressError(
            f"a second moment of shape {tuple(metric.shape)} came for a weight of shape "
            f"{tuple(weight.shape)}; {(size, size)} was wanted"
        )
    if not bool(metric.isfinite().all()):
        raise CompressError("the second moment of the inputs holds NaN or infinite values")
    metric = metric.detach().to(weight.device, torch.float64)
    return metric if metric.trace() > 0 else None


def unfold(tensor: Tensor, mode: int) -> Tensor:
    """The mode-n unfolding: (size of the mode, all the rest)."""
    return tensor.movedim(mode, 0).flatten(1)


def falling_eigenvectors(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (n,), largest first and none below zero, and eigenvectors (n, n) as columns."""
    values, vectors = torch.linalg.eigh(gram)
    return values.flip(0).clamp_min(0), vectors.flip(1)


def roots(moment: Tensor) -> tuple[Tensor, Tensor]:
    """The symmetric square root of a second moment (n, n) and its inverse, variances floored."""
    values, vectors = falling_eigenvectors(moment)
    deviations = values.clamp_min(FLOOR * values[0]).sqrt()
    return (vectors * deviations) @ vectors.T, (vectors / deviations) @ vectors.T


def kronecker_factors(metric: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """(rows, rows) and (columns, columns), whose Kronecker product has the partial traces of
    `metric` (rows * columns, rows * columns)."""
    blocks = metric.reshape(rows, columns, rows, columns)
    over_rows = blocks.diagonal(dim1=1, dim2=3).sum(-1)
    over_columns = blocks.diagonal(dim1=0, dim2=2).sum(-1)
    return over_rows, over_columns / over_rows.trace()


def kronecker_likelihood(metric: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """(rows, rows) and (columns, columns), whose Kronecker product makes `metric` likeliest.

    The flip-flop algorithm (Dutilleul, "The MLE Algorithm for the Matrix Normal Distribution",
    1999), from the partial traces. It weighs what varies little as much as what varies most, and
    so is the better guide to what may be left out.
    """
    blocks = metric.reshape(rows, columns, rows, columns)
    over_rows, over_columns = kronecker_factors(metric, rows, columns)
    for _ in range(FLIPS):
        over_rows = torch.einsum("icjd,cd->ij", blocks, _inverse(over_columns)) / columns
        over_columns = torch.einsum("icjd,ij->cd", blocks, _inverse(over_rows)) / rows
    return over_rows, over_columns


def _inverse(moment: Tensor) -> Tensor:
    return torch.cholesky_inverse(cholesky(moment, FLOOR)[0])


def cholesky(gram: Tensor, ridge: float) -> tuple[Tensor, float]:
    """The Cholesky factor of `gram` + shift * I, and the shift: `ridge` of the mean diagonal.

    The shift is multiplied by 10 for as long as round-off leaves the sum indefinite; where
    `gram` is nothing but round-off, its diagonal may be negative.
    """
    shift = max(ridge * float(gram.diagonal().abs().mean()), SMALLEST)
    for _ in range(12):
        factor, failed = torch.linalg.cholesky_ex(_shifted(gram, shift))
        if not failed:
            return factor, shift
        shift *= 10
    return torch.linalg.cholesky(_shifted(gram, shift)), shift


def _shifted(gram: Tensor, shift: float) -> Tensor:
    shifted = gram.clone(memory_format=torch.contiguous_format)
    shifted.diagonal().add_(shift)
    return shifted


def regression(
    gram: Tensor, cross: Tensor, start: Tensor, ridge: float = RIDGE
) -> tuple[Tensor, float]:
    """The X that minimises tr(X G Xᵀ) - 2 tr(X Cᵀ) + shift * ‖X - start‖², and the shift.

    Drawn to `start` rather than to zero: the loss without the last term never rises from
    there (proximal least squares), and what the data leave open keeps its value.

    Args:
        gram: G (n, n), positive semidefinite.
        cross: C (m, n).
        start: (m, n).
        ridge: the shift, as a share of the mean diagonal of G.
    """
    factor, shift = cholesky(gram, ridge)
    return torch.cholesky_solve((cross + shift * start).T, factor).T, shift


def conjugate_gradient(
    apply: Callable[[Tensor], Tensor],
    target: Tensor,
    start: Tensor,
    kronecker: tuple[Tensor, Tensor],
    steps: int,
) -> Tensor:
    """`steps` of preconditioned conjugate gradients from `start` towards apply(X) = target.

    As `conjugate_gradient_through`, where nothing that X is mapped to on the way is of use.
    """
    solution, _ = conjugate_gradient_through(
        apply, lambda image: image, target, (start, apply(start)), kronecker=kronecker, steps=steps
    )
    return solution


def conjugate_gradient_through(
    half: Callable[[Tensor], Tensor],
    close: Callable[[Tensor], Tensor],
    target: Tensor,
    start: tuple[Tensor, Tensor],
    *,
    kronecker: tuple[Tensor, Tensor],
    steps: int,
) -> tuple[Tensor, Tensor]:
    """`steps` of preconditioned conjugate gradients towards close(half(X)) = target.

    The loss <X, close(half(X))> - 2 <X, target> never rises, so a few steps are enough where an
    alternation will move the target anyway. As in `regression`, a ridge draws X to the start.

    Args:
        half: linear, and the costly one of the two: called once a step.
        close: linear; close(half(X)) is symmetric and positive semidefinite.
        target: (m, n).
        start: X (m, n) and half(X).
        kronecker: second moments (m, m) and (n, n); close(half(X)) is near left X right.
        steps: fewer are made where the solution is reached.

    Returns:
        X and half(X).
    """
    left, right = kronecker
    left_factor, _ = cholesky(left, RIDGE)
    right_factor, _ = cholesky(right, RIDGE)
    shift = RIDGE * float(left.diagonal().mean() * right.diagonal().mean())

    def precondition(residual: Tensor) -> Tensor:
        once = torch.cholesky_solve(residual, left_factor)
        return torch.cholesky_solve(once.T, right_factor).T

    solution, solution_half = start
    residual = target - close(solution_half)
    direction = descent = precondition(residual)
    slope = float((residual * descent).sum())
    smallest = ROUND_OFF**2 * float((target * precondition(target)).sum())
    for _ in range(steps):
        if slope <= smallest:
            break
        direction_half = half(direction)
        image = close(direction_half) + shift * direction
        length = slope / float((direction * image).sum())
        solution = solution + length * direction
        solution_half = torch.add(solution_half, direction_half, alpha=length)
        residual = residual - length * image
        descent = precondition(residual)
        before, slope = slope, float((residual * descent).sum())
        direction = descent + slope / before * direction
    return solution, solution_half
