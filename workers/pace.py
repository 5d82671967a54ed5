"""How far a job has come, and how long it may still take."""

import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from search.config import GeneticConfig, SearchConfig, VbmfConfig

# Where on the way, from 0 to 1, each phase begins; the one after it is its end.
MILESTONES: Final = {
    "loading": 0.0,
    "baseline": 0.02,
    "analysing": 0.05,
    "searching": 0.35,
    "confirming": 0.9,
    "exporting": 0.95,
}
RECENT = 20  # evaluations whose median is taken for those to come


def most_evaluations(config: SearchConfig) -> int:
    """No search of this configuration evaluates more candidates."""
    search, limit = config.search, config.limits.max_evaluations
    if isinstance(search, GeneticConfig):
        return min(limit, search.population * search.generations)
    if isinstance(search, VbmfConfig):
        return min(limit, 1)
    return min(limit, search.max_evaluations)


class Pace:
    """Counts what is done; `as_json` is the job's progress."""

    def __init__(
        self,
        *,
        evaluations_max: int,
        started: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to count.

        Args:
            evaluations_max: that the search may take.
            started: what the clock showed when the job began, less what earlier attempts took.
        """
        self.evaluations_done = 0
        self._evaluations_max = evaluations_max
        self._started = started
        self._clock = clock
        self._recent: deque[float] = deque(maxlen=RECENT)

    @property
    def seconds(self) -> float:
        """What the job has taken so far, in all its attempts, the queue left out."""
        return self._clock() - self._started

    def evaluated(self, seconds: float) -> None:
        """Count an evaluation, of this attempt or an earlier one."""
        self.evaluations_done += 1
        self._recent.append(seconds)

    def as_json(self, phase: str, share: float = 0.0, sentence: str = "") -> dict[str, Any]:
        """The progress.

        Args:
            phase: one of `MILESTONES`.
            share: how much of the phase is done; while searching, of the evaluation under way.
            sentence: what is being done.
        """
        if phase == "searching":
            share = min(1.0, (self.evaluations_done + share) / self._evaluations_max)
        begin = MILESTONES[phase]
        end = min([*(at for at in MILESTONES.values() if at > begin), 1.0])
        left = max(0, self._evaluations_max - self.evaluations_done)
        is_known = phase == "searching" and self._recent
        return {
            "fraction": round(begin + share * (end - begin), 4),
            "message": sentence,
            "evaluations_done": self.evaluations_done,
            "evaluations_max": self._evaluations_max,
            "eta_seconds": round(left * statistics.median(self._recent), 1) if is_known else None,
            "eta_basis": f"median of the last {len(self._recent)}" if is_known else None,
            "seconds": round(self.seconds, 3),
        }
