"""What is minimised as it is written on a command line: weighted, latency=0.7, macs=0.3."""

from collections.abc import Sequence
from typing import Any

import typer

from search.config import ConfigError, Minimise, Objective, Weights


def read_objective(minimise: Minimise, weights: Sequence[str], **circumstances: Any) -> Objective:
    """The objective that the options describe.

    Args:
        minimise: what is made small.
        weights: of `weighted`, each a name with its number.
        circumstances: the other fields.

    Raises:
        BadParameter: which ends the command with code 2.
    """
    try:
        parsed = Weights.parsed(weights) if weights else None
        return Objective(minimise=minimise, weights=parsed, **circumstances)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error
