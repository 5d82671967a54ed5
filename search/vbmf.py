"""The rank of a matrix below its noise: empirical variational Bayes, solved analytically.

Nakajima, Sugiyama, Babacan and Tomioka, "Global analytic solution of fully-observed variational
Bayesian matrix factorization" (JMLR 14, 2013). L rows, M columns, L <= M, alpha = L / M.
"""

import math

import numpy as np
from numpy.typing import NDArray

from search.bisection import crossing

GRID = 400  # noise variances looked at in each of two passes


def evbmf_rank(matrix: NDArray[np.floating]) -> int:
    """Number of singular values that stand out of the noise, whose variance is estimated.

    Args:
        matrix: (rows, columns), either way round; finite.

    Returns:
        0 to min(rows, columns): 0 for pure noise.
    """
    rows, columns = sorted(matrix.shape)
    values = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    if not rows or values[0] == 0:
        return 0
    # Zeros would have noise without variance: what round-off leaves of them is as good.
    squares = np.maximum(values, np.finfo(np.float64).eps * columns * values[0]) ** 2
    threshold = _threshold(rows / columns)
    variance = _noise_variance(squares, rows, columns, threshold)
    return int((squares > columns * variance * threshold).sum())


def _threshold(alpha: float) -> float:
    """Least gamma^2 / (M sigma^2) that is kept (theorem 2): (1 + tau) (1 + alpha / tau)."""

    def phi(z: float) -> float:
        return math.log1p(z) / z - 0.5

    # phi falls, so the sum of both is turned round; its zero lies near 2.5129 sqrt(alpha).
    root = math.sqrt(alpha)
    tau = crossing(lambda t: -(phi(t) + phi(t / alpha)), root, 4 * root)
    return (1 + tau) * (1 + alpha / tau)


def _noise_variance(
    squares: NDArray[np.float64], rows: int, columns: int, threshold: float
) -> float:
    """The variance of least free energy, between its bounds (theorem 3)."""
    most = min(math.ceil(rows / (1 + rows / columns)) - 1, rows - 1)  # components at most
    low = max(squares[most] / (columns * threshold), squares[most:].mean() / columns)
    high = squares.sum() / (rows * columns)
    for _ in range(2):  # the energy has a kink for each singular value: no descent, but a grid
        variances = np.geomspace(low, max(low, high), GRID)
        energies = _energy(squares / (columns * variances[:, None]), rows / columns, threshold)
        best = int(energies.argmin())
        low, high = variances[max(0, best - 1)], variances[min(GRID - 1, best + 1)]
    return float(variances[best])


def _energy(ratios: NDArray[np.float64], alpha: float, threshold: float) -> NDArray[np.float64]:
    """Free energy, up to a constant, of gamma^2 / (M sigma^2) (G, L): one for each variance."""
    energy = ratios - np.log(ratios)
    kept = np.maximum(ratios, threshold) - (1 + alpha)
    tau = (kept + np.sqrt(kept**2 - 4 * alpha)) / 2
    gain = np.log1p(tau) + alpha * np.log1p(tau / alpha) - tau
    return np.where(ratios > threshold, energy + gain, energy).sum(axis=1)
