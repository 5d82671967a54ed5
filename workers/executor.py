"""Where candidates are evaluated."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from search.evaluation import Evaluation
from search.strategy import Point


class Executor(Protocol):
    """Evaluates points, here or elsewhere. One that distributes them has to keep all of this.

    Every point gets one Evaluation, in the order of completion. A candidate's own failure is an
    Evaluation without costs; an error that `map` raises is one of the machinery, and means that
    nothing was found out about the point. So a lost process is tried again in here, a bounded
    number of times, and never becomes a candidate's result. No point is begun before there is
    room for it: a search may be over before the last answer is taken. An answer depends on the
    point alone, not on where it was found, but for the timing: two evaluations that share a
    device run one after the other, since they would disturb each other.
    """

    def map(self, points: Sequence[Point]) -> Iterator[Evaluation]:
        """Evaluate; the iterator may be left before its end."""
        ...

    def close(self) -> None:
        """Let go of all that was started; evaluations under way are given up."""
        ...


class InlineExecutor:
    """In this process, one after the other, each when its answer is asked for."""

    def __init__(self, evaluate: Callable[[Point], Evaluation]) -> None:
        self._evaluate = evaluate

    def map(self, points: Sequence[Point]) -> Iterator[Evaluation]:
        return map(self._evaluate, points)

    def close(self) -> None:
        """Nothing was started."""
