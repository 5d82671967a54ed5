"""The promise as it is written on a command line: 0.5pp, 1%rel."""

import re
from typing import Final

import typer

from search.config import Budget, ConfigError, Metric, Unit

UNITS: Final[dict[str, Unit]] = {"pp": "points", "%rel": "relative_percent"}
LOSS: Final = re.compile(r"(\d+\.?\d*|\.\d+) ?(pp|%rel)")


def read_budget(max_loss: str, metric: Metric, confidence: str) -> Budget:
    """The budget that the options describe.

    Args:
        max_loss: a number with its unit, which cannot be guessed.
        metric: what is lost.
        confidence: a number, or "none" for the point estimate.

    Raises:
        BadParameter: which ends the command with code 2.
    """
    found = LOSS.fullmatch(max_loss.strip())
    if found is None:
        raise typer.BadParameter(
            f"{max_loss!r} came, a loss with its unit was wanted: 0.5pp for half a percentage "
            "point, 0.5%rel for half a percent of the dense network's own value"
        )
    try:
        return Budget(
            max_loss=float(found[1]),
            unit=UNITS[found[2]],
            metric=metric,
            confidence=_confidence(confidence),
        )
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error


def _confidence(text: str) -> float | None:
    if text == "none":
        return None
    try:
        confidence = float(text)
    except ValueError:
        confidence = 0.0
    if not 0.5 < confidence <= 0.999:
        raise typer.BadParameter(
            f"confidence {text} came, a number above 0.5 and up to 0.999 or none was wanted"
        )
    return confidence
