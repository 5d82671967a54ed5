"""How what takes long tells of its way, and is told what is left to it."""

import math
from collections.abc import Callable

Report = Callable[[float, str], None]
"""Told the fraction done, in [0, 1], and a sentence on what is being done."""

Left = Callable[[], float]
"""Seconds that a job may still take; none are left below 0."""


def silent(_fraction: float, _sentence: str) -> None:
    """Nobody is told."""


def endless() -> float:
    """A job without a limit."""
    return math.inf
