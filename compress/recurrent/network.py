"""A matrix as a tensor network: factors whose axes bear labels, and those of its two sides.

Where a label is that of several factors, the product is summed over it, or goes on along it if
yet another factor has it too: the terms of a sum are one such label of all factors.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TensorNetwork:
    """What a `Projection` is built from, but for the order in which the factors are used."""

    sizes: Mapping[str, int]  # of each label
    inputs: tuple[str, ...]  # labels of the modes of the inputs, the last varying fastest
    outputs: tuple[str, ...]
    factors: Mapping[str, tuple[str, ...]]  # name -> labels of its axes

    @property
    def parameters(self) -> int:
        """Of all factors together."""
        return sum(self.size(labels) for labels in self.factors.values())

    def size(self, labels: Iterable[str]) -> int:
        """Entries of a tensor with these labels."""
        return math.prod(self.sizes[label] for label in labels)
