"""Widths beside ranks: a choice table for each of some widths of the network, and all as one.

A point of the whole has the number of the widths first, then a choice for each layer of the
network that was narrowed to them. So the two are searched together, under one budget, by one front.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain

from compress.plan import Plan
from search import knapsack, pareto
from search.config import Weights
from search.strategy import Point
from search.table import ChoiceTable, LayerRow


@dataclass(frozen=True, slots=True)
class JointTable:
    """The tables of one network at several widths; the first is that of its own."""

    tables: tuple[ChoiceTable, ...]
    kept_whole: dict[str, str] = field(default_factory=dict)
    """Layer -> why none of its output channels can be taken out."""

    def of(self, point: Point) -> tuple[ChoiceTable, Point]:
        """The table of layers that a point chooses from, and the choices."""
        number, *choices = point
        return self.tables[number], tuple(choices)

    @property
    def layers(self) -> tuple[LayerRow, ...]:
        """Of the network at its own width."""
        return self.tables[0].layers

    @property
    def kept_dense(self) -> dict[str, str]:
        """Likewise."""
        return self.tables[0].kept_dense

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to choose."""
        return len(self.tables) == 1 and self.tables[0].is_empty

    @property
    def weights(self) -> Weights:
        """What is minimised."""
        return self.tables[0].weights

    @property
    def dense_point(self) -> Point:
        return (0, *self.tables[0].dense_point)

    def plan(self, point: Point) -> Plan:
        """The plan that a point stands for."""
        table, choices = self.of(point)
        return table.plan(choices)

    def width_of(self, point: Point) -> int:
        """The number of the widths that a point has."""
        return point[0]

    def elsewhere(self, point: Point, loss: float) -> Iterator[Point]:
        """Of every other width the cheapest point within a predicted loss."""
        for number, table in enumerate(self.tables):
            if number != point[0] and table.start.loss <= loss:
                yield (number, *knapsack.cheapest(table, knapsack.front(table), loss))

    def swaps(self, point: Point) -> Iterator[tuple[Point, float, float]]:
        """As `ChoiceTable.swaps`, at the same widths."""
        table, choices = self.of(point)
        for swapped, saved, lost in table.swaps(choices):
            yield (point[0], *swapped), saved, lost

    def cost(self, point: Point) -> float:
        table, choices = self.of(point)
        return table.cost(choices)

    def loss(self, point: Point) -> float:
        table, choices = self.of(point)
        return table.loss(choices)

    def to_json(self) -> str:
        return json.dumps(asdict(self))


Table = ChoiceTable | JointTable


def tables_of(table: Table) -> tuple[ChoiceTable, ...]:
    """The tables that a table is made of."""
    return table.tables if isinstance(table, JointTable) else (table,)


def front(table: Table) -> list[Point]:
    """Every plan that no other beats in predicted loss and cost, see `search.knapsack.front`."""
    if isinstance(table, ChoiceTable):
        return knapsack.front(table)
    points = chain.from_iterable(
        ((number, *point) for point in knapsack.front(each))
        for number, each in enumerate(table.tables)
    )
    return pareto.front(points, lambda point: (table.loss(point), table.cost(point)))


def read_table(text: str) -> Table:
    """Read what `to_json` of either table wrote."""
    document = json.loads(text)
    if "tables" not in document:
        return ChoiceTable.from_document(document)
    tables = tuple(map(ChoiceTable.from_document, document["tables"]))
    return JointTable(tables, document["kept_whole"])
