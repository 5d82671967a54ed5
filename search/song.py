"""Parameter estimation as published: Song et al. 2021, algorithm 1 (J. Software 32(11):3468).

One number, the parameters that all layers have together, is bisected on the loss; then the group
search tries every combination up to the ranks found. Where the paper has ranks, the choices of a
layer stand here, by rising parameters; dense is none of them, since the paper decomposes all.
"""

import math
from itertools import product

from search.config import EstimationConfig
from search.errors import EnumerationError
from search.strategy import Candidate, Costs, Point
from search.table import ChoiceTable
from search.uniform import uniform_point


class SongSearch:
    """Ask one point at a time while bisecting, then whole rounds of the group search."""

    def __init__(self, table: ChoiceTable, config: EstimationConfig) -> None:
        self._table = table
        self._max_group_points = config.max_group_points
        self._total = sum(layer.dense.parameters for layer in table.layers)
        # sum(S): S is what one component of a CP costs, the least choice of a layer.
        self._step = sum(min(r.parameters for r in layer.choices[1:]) for layer in table.layers)
        self._told: dict[Point, Costs] = {}

    def ask(self) -> list[Point]:
        """The next points.

        Raises:
            EnumerationError: the group search would take more than `max_group_points`
                evaluations.
        """
        if not self._table.layers:
            return []
        parameters, question = self._bisect()
        return [question] if question else self._group(self._point(parameters))

    def tell(self, candidates: list[Candidate]) -> None:
        self._told.update((candidate.point, candidate.costs) for candidate in candidates)

    def _point(self, parameters: int) -> Point:
        """Each layer gets of them what it has of the dense ones (formula 26)."""
        return uniform_point(self._table, parameters / self._total)

    def _bisect(self) -> tuple[int, Point | None]:
        """The least parameters known to keep the budget, and what must be asked to know better."""
        low, high = 1, self._total
        while high - low > 2 * self._step:
            middle = (low + high) // 2
            point = self._point(middle)
            if point not in self._told:
                return high, point
            low, high = (low, middle) if self._told[point].is_feasible else (middle, high)
        return high, None

    def _group(self, most: Point) -> list[Point]:
        """For each combination of the layers but the last, the next step to the best last choice.

        Combinations do not depend on each other, so one ask holds a step of each.
        """
        *others, last = [self._ordered(i) for i in range(len(most))]
        upto = [row[: row.index(i) + 1] for row, i in zip(others, most, strict=False)]
        self._check(math.prod(map(len, upto)), len(last))
        questions = (self._top_one(combination, last) for combination in product(*upto))
        return [point for point in questions if point]

    def _ordered(self, index: int) -> list[int]:
        """The factorised choices of a layer by rising parameters."""
        choices = self._table.layers[index].choices
        order = range(1, len(choices))
        return sorted(order, key=lambda i: (choices[i].parameters, -choices[i].loss))

    def _top_one(self, combination: Point, last: list[int]) -> Point | None:
        """What must be asked to find the least last choice that keeps the budget."""
        low, high = 0, len(last)
        while low < high:
            middle = (low + high) // 2
            point = (*combination, last[middle])
            if point not in self._told:
                return point
            low, high = (low, middle) if self._told[point].is_feasible else (middle + 1, high)
        return None

    def _check(self, combinations: int, last: int) -> None:
        points = combinations * last.bit_length()  # a bisection of n choices asks that often
        if points > self._max_group_points:
            raise EnumerationError(
                f"the group search would take {points} evaluations ({combinations} combinations "
                f"of {len(self._table.layers) - 1} layers, {last.bit_length()} for the last "
                f"layer), at most {self._max_group_points} are allowed: use by='loss', which "
                "takes a dozen at any depth, exclude layers, or raise max_group_points"
            )
