"""One knob: points in a row, from the boldest to the safest."""

from collections.abc import Sequence

from search.strategy import Candidate, Costs, Point


class LadderSearch:
    """Bisect for the first point that keeps the budget, as all behind it do. One point an ask."""

    def __init__(self, points: Sequence[Point], max_evaluations: int | None = None) -> None:
        self._points = points
        self._max_evaluations = len(points) if max_evaluations is None else max_evaluations
        self._told: dict[Point, Costs] = {}

    def ask(self) -> list[Point]:
        low, high = 0, len(self._points)  # the first that keeps the budget is in low:high
        while low < high and len(self._told) < self._max_evaluations:
            middle = (low + high) // 2
            costs = self._told.get(self._points[middle])
            if costs is None:
                return [self._points[middle]]
            low, high = (low, middle) if costs.is_feasible else (middle + 1, high)
        return []

    def tell(self, candidates: list[Candidate]) -> None:
        self._told.update((candidate.point, candidate.costs) for candidate in candidates)
