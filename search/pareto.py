"""What no other beats in two costs, and the candidates of which that is so."""

import math
from collections.abc import Callable, Iterable
from typing import TypeVar

from search.strategy import Candidate, Costs, Point

Item = TypeVar("Item")


def front(items: Iterable[Item], costs: Callable[[Item], tuple[float, float]]) -> list[Item]:
    """Those of which no other has both costs as low, by rising first and falling second cost.

    Of equal ones the first that came stays. One with a cost that is NaN is left out.

    Args:
        items: in any order.
        costs: the two of an item, lower is better.
    """
    found: list[Item] = []
    least = math.inf
    known = ((*costs(item), item) for item in items)
    finite = [entry for entry in known if not math.isnan(entry[0] + entry[1])]
    for _, second, item in sorted(finite, key=lambda entry: entry[:2]):
        if second < least:
            found.append(item)
            least = second
    return found


def nearest(
    items: Iterable[Item], cost: Callable[[Item], float], wanted: Iterable[float]
) -> list[Item]:
    """For each wanted cost the item that is nearest to it, none of them twice.

    Args:
        items: one or more; of two as near the first that came is taken.
        cost: of an item.
        wanted: in the order that is returned.
    """
    known = [(cost(item), item) for item in items]
    places = (
        min(range(len(known)), key=lambda place: abs(known[place][0] - each)) for each in wanted
    )
    return [known[place][1] for place in dict.fromkeys(places)]


def unbeaten(
    candidates: Iterable[Candidate], *, dense_point: Point, allowed: float
) -> list[Candidate]:
    """The candidates, dense among them, that no other beats in loss and cost.

    By rising loss, whether within the budget or not: what another budget would have come to. The
    loss of one that was stopped early is that of the samples it has seen.

    Args:
        candidates: all that were evaluated; failed ones are left out.
        dense_point: of the table that they belong to.
        allowed: the loss that the budget allows.
    """
    dense = Costs(
        loss=0.0, violation=-allowed, time_share=1.0, parameter_share=1.0, mac_share=1.0, cost=1.0
    )
    known = [Candidate(dense_point, dense), *candidates]
    return front(known, lambda candidate: (candidate.costs.loss, candidate.costs.cost))
