"""What the table's costs come to in the whole network."""

import math
from collections.abc import Iterable

from search.joint import Table
from search.strategy import Candidate


def saving_scale(table: Table, told: Iterable[Candidate]) -> float:
    """Measured over predicted saving of cost: least squares through dense, 1 if unknown.

    The layers are timed alone; in the network they share caches and launches with others.
    Of MACs and parameters all is known beforehand. Failed candidates say nothing.
    """
    products = squares = 0.0
    for candidate in told:
        measured = 1 - candidate.costs.cost
        if math.isfinite(measured):
            predicted = 1 - table.cost(candidate.point)
            products += measured * predicted
            squares += predicted**2
    return products / squares if squares else 1.0
