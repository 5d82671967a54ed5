"""Features folded into equal slices: which numbers of slices there are."""

import math
from collections.abc import Iterator

from compress.errors import RankError


def per_slice(features: int, slices: int) -> int:
    """How many features each of equal slices has.

    Raises:
        RankError: `slices` does not divide the features.
    """
    if features % slices:
        raise RankError(
            f"{slices} slices of {features} features came; a divisor of {features} was wanted"
        )
    return features // slices


def divisors(number: int) -> Iterator[int]:
    """Those from 2 to the number itself, ascending."""
    return (divisor for divisor in range(2, number + 1) if number % divisor == 0)


def balanced(features: int) -> tuple[int, int]:
    """The two factors of a number that are nearest to each other, ascending."""
    first = next(n for n in range(math.isqrt(features), 0, -1) if features % n == 0)
    return first, features // first
