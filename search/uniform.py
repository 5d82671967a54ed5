"""The same parameter share in every layer."""

from search.config import UniformConfig
from search.ladder import LadderSearch
from search.strategy import Point
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


class UniformSearch(LadderSearch):
    """Bisect the share: the least one that keeps the budget."""

    def __init__(self, table: ChoiceTable, config: UniformConfig) -> None:
        super().__init__(uniform_points(table), config.max_evaluations)
