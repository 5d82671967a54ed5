"""Each layer's predicted loss weighed anew by what was measured, for a search that knows many.

The table predicts alike for all layers, and errs by layer: one matters more than its outputs say.
From some ten candidates on that can be told, by a ridge regression (Hoerl and Kennard 1970) that
begins with one weight for all; the more the candidates contradict it, the further it goes.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from search.strategy import Candidate
from search.table import ChoiceTable

FEWEST: Final = 10  # candidates
FURTHEST: Final = 5.0  # a layer matters at most so many times as much, or as little, as predicted
RIDGES: Final = np.geomspace(1e-4, 1e4, 17)  # of the mean square of a candidate's predictions


def reweighted(table: ChoiceTable, told: Sequence[Candidate]) -> ChoiceTable:
    """The table with losses that agree better with what was measured; costs are as they were.

    Candidates of little loss count for more: an error of a point decides there, not beyond.

    Args:
        table: that the candidates' points belong to.
        told: all that were evaluated; failed ones say nothing.
    """
    known = [c for c in told if math.isfinite(c.costs.loss) and any(c.point)]
    if len(known) < FEWEST:
        return table
    predicted = np.array([[row.loss for row in table.rows(c.point)] for c in known])
    totals = np.array([table.loss(c.point) for c in known])
    lost = np.array([c.costs.loss for c in known])
    allowed = max(abs(c.costs.loss - c.costs.violation) for c in known)
    slope = lost.sum() / totals.sum() if totals.sum() > 0 else 0.0
    if slope <= 0 or allowed <= 0:
        return table
    importance = 1 / (slope * np.abs(totals) + allowed)
    by_layers = lost - slope * table.start.loss
    weights = _ridge(slope * predicted * importance[:, None], by_layers * importance)
    layers = (
        replace(
            layer,
            choices=tuple(replace(row, loss=float(weight * row.loss)) for row in layer.choices),
        )
        for layer, weight in zip(table.layers, weights, strict=True)
    )
    return replace(table, layers=tuple(layers))


def _ridge(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights near 1 with x @ weights near y; how near is what best predicts each from the rest."""
    left = y - x.sum(1)
    values, vectors = np.linalg.eigh(x @ x.T)

    def error(ridge: float) -> float:
        hat = (vectors * (values / (values + ridge))) @ vectors.T
        return float(np.square((left - hat @ left) / (1 - np.diag(hat))).mean())

    ridge = min(RIDGES * values.mean(), key=error)
    weights = 1 + x.T @ (vectors @ (vectors.T @ left / (values + ridge)))
    return np.clip(weights, 1 / FURTHEST, FURTHEST)
