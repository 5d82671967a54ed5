"""The contract of every search: integers and costs, no tensor, no database, no clock."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

Point = tuple[int, ...]
"""One choice a layer: an index into that layer's row of the choice table; 0 is dense."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What an evaluation found. Lower is better; NaN means that the evaluation failed."""

    loss: float
    """Loss of the budget's metric, of which `violation` has been told apart."""
    violation: float
    """How far the loss that the budget is held against lies beyond it; at most 0 within it."""
    time_share: float
    """T_candidate / T_dense of the whole network."""
    parameter_share: float
    """Parameters of the candidate over those of the dense network."""
    mac_share: float
    """MACs of the candidate over those of the dense network."""
    cost: float
    """What is minimised: `Weights.cost` of the three shares. The dense network's is 1."""

    @property
    def is_feasible(self) -> bool:
        return self.violation <= 0  # False for NaN, as it should be


FAILED = Costs(math.nan, math.nan, math.nan, math.nan, math.nan, math.nan)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A point that was evaluated."""

    point: Point
    costs: Costs


class Strategy(Protocol):
    """Ask for points, tell their candidates; an empty answer ends the search.

    Whatever is random is drawn from (seed, generation): telling a new instance the stored
    candidates again, ask by ask, brings back the same search. A point is never asked twice.
    """

    def ask(self) -> list[Point]: ...

    def tell(self, candidates: list[Candidate]) -> None: ...


def search(
    strategy: Strategy, evaluate: Callable[[list[Point]], list[Candidate]]
) -> Iterator[Candidate]:
    """Ask, evaluate, tell, until the strategy has no more questions."""
    while points := strategy.ask():
        candidates = evaluate(points)
        strategy.tell(candidates)
        yield from candidates


def best(candidates: list[Candidate]) -> Candidate | None:
    """The feasible candidate of least cost, or None."""
    feasible = [c for c in candidates if c.costs.is_feasible]
    return min(feasible, key=lambda c: (c.costs.cost, c.costs.loss), default=None)
