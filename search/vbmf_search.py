"""Analytic ranks, as they come: one point, and no knob for the budget."""

from search.strategy import Candidate, Point
from search.table import ChoiceTable


class VbmfSearch:
    """Ask for the choices nearest to the analytic ranks; where there is none, dense stays."""

    def __init__(self, table: ChoiceTable) -> None:
        point = tuple(layer.vbmf or 0 for layer in table.layers)
        self._points = [point] if point != table.dense_point else []

    def ask(self) -> list[Point]:
        return self._points

    def tell(self, candidates: list[Candidate]) -> None:
        told = {candidate.point for candidate in candidates}
        self._points = [point for point in self._points if point not in told]
