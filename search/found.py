"""What came of asking, evaluating and telling."""

from dataclasses import dataclass
from typing import Literal

from search.strategy import Candidate

StoppedBy = Literal["max_seconds", "max_evaluations"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the search came to."""

    candidates: list[Candidate]
    """All that were evaluated, in earlier attempts too."""
    stopped_by: StoppedBy | None
    """The limit that ended it; None if the strategy had no more questions."""
    seconds: float
    """What this attempt took."""
    samples_saved: float = 0.0
    """Share of the samples of its evaluations that an early stop spared this attempt."""
