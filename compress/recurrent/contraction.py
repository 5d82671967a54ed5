"""In which order a vector is multiplied by the factors of a tensor network.

The data take up one factor after the other, or the product of two that is no larger than both;
the matrix itself is never built. Among these orders the cheapest, of MACs and of copies of the
data, is found by dynamic programming over the sets of factors that are used already
(Held and Karp, "A Dynamic Programming Approach to Sequencing Problems", 1962).
"""

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import combinations

from compress.recurrent.network import TensorNetwork
from compress.recurrent.projection import ROWS, Labels, steps_of

# States of equally many used factors that are followed: all sets of up to 12 factors.
MOST_STATES = 924
# MACs that a copied entry counts as. It takes as long as 8 (1.2 ns beside 0.15 ns, one thread, thin
# products), but a smaller product saves memory too: with 8 some orders were slower than with 2.
COPY = 2

Order = tuple[Labels, ...]
Set = int  # of factors or of labels: a bit for each
State = tuple[Set, Labels]  # used factors, and labels of the data in the order of their axes
Level = dict[State, tuple[int, Order]]  # the least cost so far, and how it is reached


def macs(network: TensorNetwork, order: Sequence[Labels]) -> int:
    """Of one vector. Products of factors are not among them: they are made once for all."""
    steps = steps_of(network.inputs, network.outputs, network.factors, order)
    return sum(network.size({*step.before, *step.factor} - {ROWS}) for step in steps)


def copied(network: TensorNetwork, order: Sequence[Labels]) -> int:
    """Entries of one vector's data that are put into another order of axes on their way."""
    steps = [*steps_of(network.inputs, network.outputs, network.factors, order)]
    entries = [
        network.size({*step.before} - {ROWS})
        for step in steps
        if is_copied(step.before, step.along, step.rows, step.summed)
    ]
    if steps[-1].after != (ROWS, *network.outputs):
        entries.append(network.size(network.outputs))
    return sum(entries)


def is_copied(before: Labels, along: Labels, rows: Labels, summed: Labels) -> bool:
    """Whether data with the labels `before` are copied to be parted into these three.

    Labels that follow each other are one axis where they lie, and a matrix product takes its
    operands either way round, but not with the terms innermost.
    """
    parts = ((part, before.index(part[0])) for part in (along, rows, summed) if part)
    return before[-1] in along or any(before[i : i + len(part)] != part for part, i in parts)


def cost(network: TensorNetwork, order: Sequence[Labels]) -> int:
    """What `best_order` makes the least of, in MACs."""
    return macs(network, order) + COPY * copied(network, order)


def best_order(network: TensorNetwork) -> Order:
    """The order of the least cost; of equal ones the first in the order of the factors."""
    sets = _Sets(network)
    names = list(network.factors)
    single = {1 << i: (name,) for i, name in enumerate(names)}
    blocks = single | {
        first + second: single[first] + single[second]
        for first, second in combinations(single, 2)
        if sets.is_no_larger(first, second)
    }
    levels: list[Level] = [{} for _ in range(len(names) + 1)]
    levels[0][0, (ROWS, *network.inputs)] = (0, ())
    for count, level in enumerate(levels):
        for (used, labels), (spent, order) in _kept(level):
            for block, chosen in blocks.items():
                if not used & block:
                    taken, after = sets.step(used, labels, block)
                    state, reached = (used | block, after), spent + taken
                    others = levels[count + len(chosen)]
                    if state not in others or reached < others[state][0]:
                        others[state] = (reached, (*order, chosen))
    ends = levels[-1].items()
    _, (_, order) = min(ends, key=lambda end: end[1][0] + sets.ending(end[0][1]))
    return order


def _kept(level: Level) -> list[tuple[State, tuple[int, Order]]]:
    """The cheapest state of each set before the second of any."""
    cheapest = sorted(level.items(), key=lambda entry: entry[1][0])
    met: Counter[Set] = Counter()
    places = []
    for (used, _), _ in cheapest:
        places.append(met[used])
        met[used] += 1
    ranked = sorted(zip(places, cheapest, strict=True), key=lambda one: one[0])
    return [entry for _, entry in ranked[:MOST_STATES]]


class _Sets:
    """Sets of factors and labels as bits, to be compared many times."""

    def __init__(self, network: TensorNetwork) -> None:
        self._network = network
        self._sizes = list(network.sizes.values())
        self._bits = {label: 1 << i for i, label in enumerate(network.sizes)} | {ROWS: 0}
        self._inputs, self._outputs, *self._factors = (
            sum(self._bits[label] for label in labels)
            for labels in (network.inputs, network.outputs, *network.factors.values())
        )
        self.size = cache(self._size)
        self._labels = cache(self._labels_of)
        self._ordered = cache(self._ordered_labels)

    def step(self, used: Set, labels: Labels, block: Set) -> tuple[int, Labels]:
        """The cost of taking up `block` after the factors `used`, and the labels of the data."""
        held, needed = self._labels(block), self._outputs | self._labels(~(used | block))
        bits = self._bits
        before = sum(bits[label] for label in labels)
        along = tuple(label for label in labels if bits[label] & held & needed)
        rows = tuple(label for label in labels if not bits[label] & held)
        summed = tuple(label for label in labels if bits[label] & held & ~needed)
        new = tuple(label for label in self._ordered(block) if bits[label] & needed & ~before)
        spent = self.size(before | held & needed)
        if is_copied(labels, along, rows, summed):
            spent += COPY * self.size(before)
        return spent, along + rows + new

    def ending(self, labels: Labels) -> int:
        """The cost of putting the outputs in order."""
        return 0 if labels == (ROWS, *self._network.outputs) else COPY * self.size(self._outputs)

    def is_no_larger(self, first: Set, second: Set) -> bool:
        """Whether the product of two factors holds no more than both, and is not the matrix."""
        one, other = self._labels(first), self._labels(second)
        elsewhere = self._inputs | self._outputs | self._labels(~(first | second))
        product = (one | other) & elsewhere
        fits = self.size(product) <= self.size(one) + self.size(other)
        return fits and product != self._inputs | self._outputs

    def _labels_of(self, factors: Set) -> Set:
        labels = 0
        for i, factor in enumerate(self._factors):
            if factors >> i & 1:
                labels |= factor
        return labels

    def _ordered_labels(self, factors: Set) -> Labels:
        """As the factors have them."""
        held = self._network.factors.values()
        each = (axes for i, axes in enumerate(held) if factors >> i & 1)
        return tuple(dict.fromkeys(label for axes in each for label in axes))

    def _size(self, labels: Set) -> int:
        return math.prod(size for i, size in enumerate(self._sizes) if labels >> i & 1)
