"""Where a rising function turns positive."""

from collections.abc import Callable


def crossing(rising: Callable[[float], float], low: float, high: float) -> float:
    """The least number from `low` to `high` at which `rising` is not negative, to the last bit.

    Where it is negative on the whole interval, the answer is `high`.
    """
    while low < (middle := (low + high) / 2) < high:
        if rising(middle) < 0:
            low = middle
        else:
            high = middle
    return high
