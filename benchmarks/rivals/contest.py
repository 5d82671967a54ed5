"""A rival's run under the rules that hold for all: so many evaluations, and the best any time."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from search.confirmation import RACING
from search.strategy import Candidate, Costs, Point, Strategy, best

Evaluated = tuple[Costs, float]
"""What a point costs, and the CPU seconds that it took to find that out."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one rival asked, in order."""

    candidates: list[Candidate]
    seconds: float
    """CPU seconds: of the evaluations when they were first made, and of the rival's own sums."""

    @property
    def finalists(self) -> list[Candidate]:
        """The fastest that keep the budget, as many as the product races before it delivers."""
        feasible = [c for c in self.candidates if c.costs.is_feasible]
        return sorted(feasible, key=lambda c: (c.costs.time_share, c.costs.loss))[:RACING]

    def speedup_after(self, evaluations: int) -> float:
        """Of the fastest among the first candidates that keeps the budget; 1 without any."""
        found = best(self.candidates[:evaluations])
        return max(1.0, 1 / found.costs.time_share) if found else 1.0

    def evaluations_to(self, speedup: float) -> int | None:
        """How many it took to be that fast within the budget; None if it never was."""
        counts = range(1, len(self.candidates) + 1)
        return next((n for n in counts if self.speedup_after(n) >= speedup), None)


def run(strategy: Strategy, evaluate: Callable[[Point], Evaluated], max_evaluations: int) -> Run:
    """Ask, evaluate and tell until the rival has no more questions or has asked enough."""
    candidates: list[Candidate] = []
    seconds = 0.0
    while len(candidates) < max_evaluations:
        begun = time.process_time()
        points = strategy.ask()[: max_evaluations - len(candidates)]
        seconds += time.process_time() - begun
        if not points:
            break
        found = [evaluate(point) for point in points]
        seconds += sum(each for _, each in found)
        told = [Candidate(p, costs) for p, (costs, _) in zip(points, found, strict=True)]
        candidates += told
        begun = time.process_time()
        strategy.tell(told)
        seconds += time.process_time() - begun
    return Run(candidates, seconds)


def median(values: Sequence[float | None]) -> float | None:
    """Of values of which None is the greatest: the middle one, the greater of two."""
    known = sorted(value for value in values if value is not None)
    middle = len(values) // 2
    return known[middle] if middle < len(known) else None
