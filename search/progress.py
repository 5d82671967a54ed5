"""How what takes long tells of its way."""

from collections.abc import Callable

Report = Callable[[float, str], None]
"""Told the fraction done, in [0, 1], and a sentence on what is being done."""


def silent(_fraction: float, _sentence: str) -> None:
    """Nobody is told."""
