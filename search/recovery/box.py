"""The time that a training may take."""

import time
from collections.abc import Callable

Clock = Callable[[], float]


class Box:
    """Seconds that begin with it."""

    def __init__(self, max_seconds: float, clock: Clock = time.monotonic) -> None:
        self._max_seconds = max_seconds
        self._clock = clock
        self._begun = clock()

    @property
    def seconds(self) -> float:
        """Spent so far."""
        return self._clock() - self._begun

    @property
    def left(self) -> float:
        """Seconds that are left, 0 at least."""
        return max(0.0, self._max_seconds - self.seconds)

    @property
    def spent(self) -> float:
        """Share of the seconds that is spent, at most 1."""
        return 1 - self.left / self._max_seconds if self._max_seconds > 0 else 1.0

    def part(self, share: float = 1.0) -> "Box":
        """A box of a share of the seconds that are left, beginning now."""
        return Box(share * self.left, self._clock)
