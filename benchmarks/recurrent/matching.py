"""Ranks with which formats have as many parameters, or as many MACs, as each other."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from compress.recurrent.contraction import best_order, macs
from compress.recurrent.formats import FORMATS, Ranks, network_of
from compress.recurrent.modes import Modes
from compress.recurrent.network import TensorNetwork

WITH_TERMS = ("block_term", "kcp")  # whose first rank counts terms
FILLED = 0.9  # of what the fullest way has: emptier ones are no match

Measure = Callable[[TensorNetwork], int]
Ladder = Callable[[int], Ranks]  # ever larger ranks, from 0


@dataclass(frozen=True, slots=True)
class Match:
    """A format as large as a budget allows."""

    format: str
    modes: Modes
    ranks: Ranks
    network: TensorNetwork


def parameters(network: TensorNetwork) -> int:
    """Of all factors."""
    return network.parameters


def least_macs(network: TensorNetwork) -> int:
    """Of one vector, in the order that the product would take."""
    return macs(network, best_order(network))


def matched(
    name: str,
    modes: Modes,
    budget: int,
    measure: Measure = parameters,
    *,
    few_terms: bool = False,
) -> Match | None:
    """The largest ranks of a format within a budget; None if even rank 1 is above it.

    All ranks are the same, or the first few one greater. Of several ways to fill the budget, with
    many terms of low rank or few of a high one, that with the fewest MACs, or, where MACs are the
    budget, with the most parameters; that with the fewest terms if `few_terms`.
    """
    found = []
    for ladder in _ladders(name, modes):
        step = _highest(lambda i, to=ladder: measure(network_of(name, modes, to(i))) <= budget)
        if step is not None:
            ranks = ladder(step)
            found.append(Match(name, modes, ranks, network_of(name, modes, ranks)))
    if not found:
        return None
    fullest = max(measure(match.network) for match in found)
    full = [match for match in found if measure(match.network) >= FILLED * fullest]
    if few_terms:
        return min(full, key=lambda match: match.ranks[0])
    if measure is parameters:
        return min(full, key=lambda match: least_macs(match.network))
    return max(full, key=lambda match: match.network.parameters)


def _ladders(name: str, modes: Modes) -> Iterator[Ladder]:
    limits = FORMATS[name].limits(modes)
    if name not in WITH_TERMS:
        yield lambda i: _raised(i, limits)
        return
    terms, *others = limits
    for rank in range(1, max(others) + 1):
        shared = tuple(min(rank, limit) for limit in others)
        yield lambda i, shared=shared: (min(i + 1, terms), *shared)


def _raised(i: int, limits: Ranks) -> Ranks:
    """All 1, then one after the other 2, then 3."""
    if not limits:
        return ()
    rank, more = divmod(i, len(limits))
    return tuple(min(rank + 1 + (at < more), limit) for at, limit in enumerate(limits))


def _highest(fits: Callable[[int], bool], most: int = 2**14) -> int | None:
    """The last number that fits, of numbers that do up to some one."""
    if not fits(0):
        return None
    low, high = 0, 1
    while high < most and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
