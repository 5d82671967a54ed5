"""The same parameter share in every layer."""

from search.config import UniformConfig
from search.strategy import Candidate, Costs, Point
from search.table import ChoiceTable, LayerRow


def uniform_point(table: ChoiceTable, share: float) -> Point:
    """The factorised choice of most parameters within `share` of dense, in each layer.

    Where no choice has so few parameters, the one of fewest.
    """
    return tuple(_within(layer, share * layer.dense.parameters) for layer in table.layers)


def uniform_points(table: ChoiceTable) -> list[Point]:
    """All the points that some share stands for, by rising share."""
    shares = {
        row.parameters / layer.dense.parameters
        for layer in table.layers
        for row in layer.choices[1:]
    }
    return list(dict.fromkeys(uniform_point(table, share) for share in sorted(shares)))


def _within(layer: LayerRow, parameters: float) -> int:
    def order(index: int) -> tuple[bool, float, float]:
        row = layer.choices[index]
        fits = row.parameters <= parameters * (1 + 1e-12)  # a share times its divisor, rounded
        return fits, row.parameters if fits else -row.parameters, -row.loss

    return max(range(1, len(layer.choices)), key=order)


class UniformSearch:
    """Bisect the share: the least one that keeps the budget. One point an ask."""

    def __init__(self, table: ChoiceTable, config: UniformConfig) -> None:
        self._max_evaluations = config.max_evaluations
        self._points = uniform_points(table)
        self._told: dict[Point, Costs] = {}

    def ask(self) -> list[Point]:
        low, high = 0, len(self._points)  # the least share that keeps the budget is in low:high
        while low < high and len(self._told) < self._max_evaluations:
            middle = (low + high) // 2
            costs = self._told.get(self._points[middle])
            if costs is None:
                return [self._points[middle]]
            low, high = (low, middle) if costs.is_feasible else (middle + 1, high)
        return []

    def tell(self, candidates: list[Candidate]) -> None:
        self._told.update((candidate.point, candidate.costs) for candidate in candidates)
