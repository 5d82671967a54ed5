"""The greedy rule of AIMET, Qualcomm's toolkit (aimet-torch 2.x, its documentation).

Each layer is tried alone at nine ratios, the rest dense; then one score is sought for all layers,
and each takes its cheapest choice that scored no worse.
"""

import math
from collections.abc import Mapping

from search.genetic import spread
from search.ladder import LadderSearch
from search.strategy import Candidate, Point
from search.table import ChoiceTable

RATIOS = 9  # choices of a layer that are scored


class GreedySearch:
    """Score single choices, all in one ask, then bisect the score that every layer must reach."""

    def __init__(self, table: ChoiceTable) -> None:
        self._table = table
        self._singles = [
            (*table.dense_point[:i], j, *table.dense_point[i + 1 :])
            for i, size in enumerate(table.sizes)
            for (j,) in spread([(j,) for j in range(1, size)], RATIOS)
        ]
        self._told: dict[Point, Candidate] = {}
        self._ladder: LadderSearch | None = None

    def ask(self) -> list[Point]:
        if self._ladder is not None:
            return self._ladder.ask()
        return [single for single in self._singles if single not in self._told]

    def tell(self, candidates: list[Candidate]) -> None:
        if self._ladder is not None:
            self._ladder.tell(candidates)
            return
        self._told |= {candidate.point: candidate for candidate in candidates}
        if self.ask():
            return
        points = self._together()
        self._ladder = LadderSearch(points)
        self._ladder.tell([self._told[point] for point in points if point in self._told])

    def _together(self) -> list[Point]:
        """The plan of each score, from the worst score to the best."""
        losses = {point: told.costs.loss for point, told in self._told.items()}
        scores = sorted({loss for loss in losses.values() if math.isfinite(loss)}, reverse=True)
        points = dict.fromkeys(self._point(losses, score) for score in scores)
        points.pop(self._table.dense_point, None)
        return list(points)

    def _point(self, losses: Mapping[Point, float], score: float) -> Point:
        """The fewest MACs in every layer whose single choice lost no more than `score`."""
        point = list(self._table.dense_point)
        for single in self._singles:
            i = next(i for i, j in enumerate(single) if j)
            choices = self._table.layers[i].choices
            if losses[single] <= score and choices[single[i]].macs < choices[point[i]].macs:
                point[i] = single[i]
        return tuple(point)
