"""The modes of a matrix: how its inputs and its outputs are folded into a tensor's axes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from compress.errors import RankError

ORDER = 2  # of a default: the only one at which a sum of Kronecker products has a best fit


@dataclass(frozen=True, slots=True)
class Modes:
    """(n_1, ..., n_d) inputs and (m_1, ..., m_d) outputs, the last of each varying fastest.

    Raises:
        RankError: a size is no integer above zero, or the sides have other numbers of modes.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def __post_init__(self) -> None:
        sizes = (*self.inputs, *self.outputs)
        if any(type(size) is not int or size < 1 for size in sizes):
            raise RankError(f"modes {sizes} came; integers above zero were wanted")
        if not 0 < len(self.inputs) == len(self.outputs):
            raise RankError(
                f"{len(self.inputs)} modes of the inputs and {len(self.outputs)} of the outputs "
                "came; as many of both were wanted, and one at least"
            )

    @classmethod
    def of(cls, in_features: int, out_features: int, order: int = ORDER) -> Self:
        """The modes of each side as near to each other as they can be, the longest last.

        The longest mode of the inputs is contracted first and that of the outputs comes last;
        what varies fastest needs no copy.

        Args:
            in_features: N; a prime has the modes (1, ..., 1, N).
            out_features: M, of all gates.
            order: d.

        Raises:
            RankError: a number is below one.
        """
        if min(in_features, out_features, order) < 1:
            raise RankError(
                f"{in_features} inputs, {out_features} outputs and {order} modes came; "
                "numbers above zero were wanted"
            )
        return cls(nearest_factors(in_features, order), nearest_factors(out_features, order))

    def as_json(self) -> dict[str, list[int]]:
        """What `from_json` reads."""
        return {"inputs": list(self.inputs), "outputs": list(self.outputs)}

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """Of {"inputs": [n_1, ...], "outputs": [m_1, ...]}.

        Raises:
            RankError: it is not that.
        """
        try:
            inputs, outputs = document["inputs"], document["outputs"]
            return cls(tuple(inputs), tuple(outputs))
        except (KeyError, TypeError) as error:
            raise RankError(
                f"modes {document!r} came; the sizes of inputs and outputs were wanted"
            ) from error

    @property
    def order(self) -> int:
        """d"""
        return len(self.inputs)

    @property
    def in_features(self) -> int:
        """N"""
        return math.prod(self.inputs)

    @property
    def out_features(self) -> int:
        """M"""
        return math.prod(self.outputs)

    def check(self, out_features: int, in_features: int) -> None:
        """Refuse a matrix of another size.

        Raises:
            RankError: the modes are not those of (out_features, in_features).
        """
        if (self.out_features, self.in_features) != (out_features, in_features):
            raise RankError(
                f"modes {self.outputs} x {self.inputs} of a matrix "
                f"{(self.out_features, self.in_features)} came for one of "
                f"{(out_features, in_features)}"
            )


def nearest_factors(number: int, count: int) -> tuple[int, ...]:
    """`count` factors of a number whose sum is the least, ascending."""
    return min(_ascending_factors(number, count, 1), key=sum)


def _ascending_factors(number: int, count: int, least: int) -> Iterator[tuple[int, ...]]:
    if count == 1:
        yield (number,)
        return
    first = least
    while first**count <= number:
        if number % first == 0:
            for rest in _ascending_factors(number // first, count - 1, first):
                yield (first, *rest)
        first += 1
