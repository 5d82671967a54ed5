"""How well the table guided the search, and how far it could have led."""

import math
from collections.abc import Sequence
from typing import Any, Final

from scipy.stats import spearmanr

from search.joint import Table
from search.strategy import Candidate, Point
from search.table import ChoiceTable

FEWEST: Final = 3  # candidates of which an order says anything

Pair = tuple[float, float]
"""What was predicted, and what was measured."""


def surrogate(table: Table, candidates: Sequence[Candidate]) -> dict[str, Any]:
    """Rank correlations (Spearman 1904) of predicted with measured, over the candidates.

    Returns:
        JSON: `loss` and `latency`, each None for fewer than three candidates or where all are
        alike, and the number of candidates; failed ones say nothing.
    """
    found = foretold(table, candidates)
    return {"candidates": len(found["loss"])} | {
        name: rank_correlation(pairs) for name, pairs in found.items()
    }


def foretold(table: Table, candidates: Sequence[Candidate]) -> dict[str, list[Pair]]:
    """Predicted with measured `loss` and `latency`, of every candidate that did not fail."""
    known = [c for c in candidates if math.isfinite(c.costs.loss)]
    return {
        "loss": [(table.loss(c.point), c.costs.loss) for c in known],
        "latency": [(_latency_share(table, c.point), c.costs.time_share) for c in known],
    }


def rank_correlation(pairs: Sequence[Pair]) -> float | None:
    """Spearman's; None for fewer than three pairs or where all of one side are alike."""
    if len(pairs) < FEWEST or any(len(set(side)) == 1 for side in zip(*pairs, strict=True)):
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def limit(table: ChoiceTable, speedup: float) -> dict[str, float | None]:
    """What no plan can pass: the speedup with the layers of the table for nothing (Amdahl 1967).

    Args:
        table: whose layers all have other forms; of a narrowed network, at its widths.
        speedup: T_dense / T of the result.

    Returns:
        JSON: `speedup`, None where the layers by themselves take as long as the whole network, and
        `achieved`, the share that was saved of the time that could be.
    """
    free = table.start.latency_ms - sum(layer.dense.latency_ms for layer in table.layers)
    open_share = 1 - max(free, 0.0) / table.dense_latency_ms
    return {
        "speedup": table.dense_latency_ms / free if free > 0 else None,
        "achieved": min((1 - 1 / speedup) / open_share, 1.0) if open_share > 0 else None,
    }


def _latency_share(table: Table, point: Point) -> float:
    chosen, choices = table.of(point)
    return chosen.latency_ms(choices) / chosen.dense_latency_ms
