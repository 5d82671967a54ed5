"""Searches in turn, each from what those before it found: never behind them, and further if it can.

With widths, the ranks of the network at its own come first: the tables of several widths predict
unalike, and whoever orders widths is not to get less than without. The genetic search begins where
the estimation ends, with all that it evaluated for parents, at the widths of the best.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from search.config import GeneticConfig
from search.genetic import GeneticSearch
from search.joint import Table
from search.strategy import Candidate, Point, Strategy, best

Stage = Callable[[list[Candidate]], Strategy]
"""Begins a search that knows what was told so far."""


class InTurn:
    """Ask what a stage asks until it has no more questions, then the next."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._told: list[Candidate] = []
        first, *self._coming = stages
        self._strategy = first([])

    def ask(self) -> list[Point]:
        while not (points := self._strategy.ask()) and self._coming:
            self._strategy = self._coming.pop(0)(list(self._told))
        return points

    def tell(self, candidates: list[Candidate]) -> None:
        self.ask()  # moves on to the stage that they are for
        self._strategy.tell(candidates)
        self._told += candidates


class GeneticStage:
    """The genetic search at the widths of the best that was told; of none, at the network's own."""

    def __init__(self, table: Table, config: GeneticConfig, told: list[Candidate]) -> None:
        found = best(told)
        point = found.point if found else table.dense_point
        chosen, choices = table.of(point)
        self._width = point[: len(point) - len(choices)]  # its number, where there are several
        seeds = [c for c in told if c.point[: len(self._width)] == self._width]
        self._search = GeneticSearch(chosen, config, [self._chosen(seed) for seed in seeds])

    def ask(self) -> list[Point]:
        return [(*self._width, *choices) for choices in self._search.ask()]

    def tell(self, candidates: list[Candidate]) -> None:
        self._search.tell([self._chosen(candidate) for candidate in candidates])

    def _chosen(self, candidate: Candidate) -> Candidate:
        return replace(candidate, point=candidate.point[len(self._width) :])
