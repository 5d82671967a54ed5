"""In which order a vector is multiplied by the factors of a tensor network.

The data take up one factor after the other, or the product of two that is no larger than both;
the matrix itself is never built. Among these orders the one with the
fewest MACs is found by dynamic programming over the sets of factors that are used already
(Held and Karp, "A Dynamic Programming Approach to Sequencing Problems", 1962).
"""

import math
from collections.abc import Sequence
from functools import cache
from itertools import combinations

from compress.recurrent.network import TensorNetwork
from compress.recurrent.projection import ROWS, Labels, steps_of

# Sets of equally many factors, of which the cheapest are kept: all of up to 12 factors.
MOST_SETS = 924

Order = tuple[Labels, ...]
Set = int  # of factors or of labels: a bit for each


def macs(network: TensorNetwork, order: Sequence[Labels]) -> int:
    """Of one vector. Products of factors are not among them: they are made once for all."""
    steps = steps_of(network.inputs, network.outputs, network.factors, order)
    return sum(network.size({*step.before, *step.factor} - {ROWS}) for step in steps)


def best_order(network: TensorNetwork) -> Order:
    """The order of the fewest MACs; of equal ones the first in the order of the factors."""
    sets = _Sets(network)
    names = list(network.factors)
    single = {1 << i: (name,) for i, name in enumerate(names)}
    blocks = single | {
        first + second: single[first] + single[second]
        for first, second in combinations(single, 2)
        if sets.is_no_larger(first, second)
    }
    levels: list[dict[Set, tuple[int, Order]]] = [{} for _ in range(len(names) + 1)]
    levels[0][0] = (0, ())
    for count, level in enumerate(levels):
        cheapest = sorted(level.items(), key=lambda entry: entry[1][0])[:MOST_SETS]
        for used, (cost, order) in cheapest:
            for block, chosen in blocks.items():
                if not used & block:
                    reached = cost + sets.macs(used, block)
                    others = levels[count + len(chosen)]
                    if used | block not in others or reached < others[used | block][0]:
                        others[used | block] = (reached, (*order, chosen))
    ((_, order),) = levels[-1].values()
    return order


class _Sets:
    """Sets of factors and labels as bits, to be compared many times."""

    def __init__(self, network: TensorNetwork) -> None:
        self._sizes = list(network.sizes.values())
        bits = {label: 1 << i for i, label in enumerate(network.sizes)}
        self._inputs, self._outputs, *self._factors = (
            sum(bits[label] for label in labels)
            for labels in (network.inputs, network.outputs, *network.factors.values())
        )
        self.size = cache(self._size)
        self.open_labels = cache(self._open_labels)

    def macs(self, used: Set, block: Set) -> int:
        """Of the step that takes up `block` after the factors `used`."""
        return self.size(self.open_labels(used) | self.open_labels(used | block))

    def is_no_larger(self, first: Set, second: Set) -> bool:
        """Whether the product of two factors holds no more than both, and is not the matrix."""
        one, other = self._labels(first), self._labels(second)
        elsewhere = self._inputs | self._outputs | self._labels(~(first | second))
        product = (one | other) & elsewhere
        fits = self.size(product) <= self.size(one) + self.size(other)
        return fits and product != self._inputs | self._outputs

    def _open_labels(self, used: Set) -> Set:
        """Of the data after the factors `used`."""
        return (self._inputs | self._labels(used)) & (self._outputs | self._labels(~used))

    def _labels(self, factors: Set) -> Set:
        labels = 0
        for i, factor in enumerate(self._factors):
            if factors >> i & 1:
                labels |= factor
        return labels

    def _size(self, labels: Set) -> int:
        return math.prod(size for i, size in enumerate(self._sizes) if labels >> i & 1)
