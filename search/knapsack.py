"""The cheapest plans for every total predicted loss: a multiple-choice knapsack.

Nemhauser and Ullmann, "Discrete dynamic programming and capital allocation" (1969): partial
plans that another partial plan beats in loss and in cost cannot be part of an optimum, so
each layer extends only the unbeaten ones. One pass gives the answer for every loss at once.
"""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search.strategy import Point
from search.table import ChoiceTable


def front(table: ChoiceTable, resolution: int = 2048) -> list[Point]:
    """Every plan that no other beats in predicted loss and cost, from dense to cheapest.

    Losses are summed, never rounded, so a plan is within any loss that it claims. The cost is
    what gets quantised, and only where more than `resolution` partial plans are unbeaten: each
    layer then keeps the plan of least loss within each of that many costs, equally spaced.
    A plan is thus dearer than the true optimum by at most layers / (resolution - 1) of the
    cost between dense and cheapest, and not at all on small tables.

    Returns:
        Points by rising predicted loss and falling predicted cost; the first loses the
        least (dense, unless a choice loses nothing), the last is the cheapest of all.
    """
    losses, costs = np.zeros(1), np.zeros(1)
    kept_by_layer: list[NDArray[np.intp]] = []
    for layer in table.layers:
        sums = np.add.outer(losses, [row.loss for row in layer.choices]).ravel()
        totals = np.add.outer(costs, [table.row_cost(row) for row in layer.choices]).ravel()
        kept = _unbeaten(sums, totals)
        if len(kept) > resolution:
            kept = kept[_thinned(totals[kept], resolution)]
        losses, costs = sums[kept], totals[kept]
        kept_by_layer.append(kept)
    return _points(table.sizes, kept_by_layer)


def cheapest(table: ChoiceTable, points: Sequence[Point], loss: float) -> Point:
    """The cheapest of a front's points whose predicted loss is within `loss`, else the first."""
    return points[max(0, bisect_right(points, loss, key=table.loss) - 1)]


def _unbeaten(losses: NDArray[np.float64], costs: NDArray[np.float64]) -> NDArray[np.intp]:
    """Indices by rising loss and strictly falling cost."""
    order = np.lexsort((costs, losses))
    sorted_costs = costs[order]
    before = np.minimum.accumulate(sorted_costs)[:-1]
    return order[np.concatenate(([True], sorted_costs[1:] < before))]


def _thinned(costs: NDArray[np.float64], resolution: int) -> NDArray[np.intp]:
    """Of falling costs, the first within each of `resolution` equally spaced limits."""
    limits = np.linspace(costs[0], costs[-1], resolution)
    return np.unique(np.searchsorted(-costs, -limits))


def _points(sizes: Point, kept_by_layer: Sequence[NDArray[np.intp]]) -> list[Point]:
    """Walk back from the last layer: an index counts (partial plan, choice) pairs."""
    count = len(kept_by_layer[-1]) if kept_by_layer else 1
    indices = np.arange(count)
    choices = np.empty((count, len(sizes)), dtype=np.intp)
    for i in reversed(range(len(sizes))):
        indices, choices[:, i] = np.divmod(kept_by_layer[i][indices], sizes[i])
    return [tuple(point) for point in choices.tolist()]
