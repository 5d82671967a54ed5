"""Which candidates are worth a test on the confirmation split, and in which order."""

import math

from search.joint import Table
from search.pareto import front, nearest
from search.strategy import Candidate

# Of those whose bound is within on the search split, from the safest to the cheapest: each is
# another test that may fail and end the testing before one that would have passed; but where costs
# lie far apart, one that was left out is missed more.
FEWEST, MOST = 4, 8
APART = 1.25  # about the ratio of the costs of neighbours, where there are more than the fewest
BEYOND = 1  # cheaper ones of which the loss alone is within: tested last, they put nothing at risk


def finalists(table: Table, candidates: list[Candidate], allowed: float) -> list[Candidate]:
    """Up to nine candidates that are cheaper than dense, in the order they are to be tested.

    The safest is the one of least predicted loss: on some hundred images most candidates within
    the budget have lost the same, and which of them a few more wrong answers would push out is
    the prediction's to say. Where none is feasible, those of least predicted loss are tested all
    the same: the confirmation split is the larger one, and its tighter bound may suffice.

    Args:
        table: that the candidates' points belong to.
        candidates: all that were evaluated, in any order.
        allowed: the loss that the budget allows on the search split.
    """

    def safe_and_cheap(candidate: Candidate) -> tuple[float, float]:
        return table.loss(candidate.point), candidate.costs.cost

    cheaper = [c for c in candidates if c.costs.cost < 1]  # False for NaN
    within = front([c for c in cheaper if c.costs.is_feasible], safe_and_cheap)
    if not within:
        return front(cheaper, safe_and_cheap)[:FEWEST]
    most, least = (candidate.costs.cost for candidate in (within[0], within[-1]))
    steps = math.ceil(math.log(most / least, APART)) if least > 0 else MOST
    steps = min(max(steps, FEWEST - 1), MOST - 1)
    equal_ratios = (most * (least / most) ** (i / steps) for i in range(steps + 1))
    tested = nearest(within, lambda candidate: candidate.costs.cost, equal_ratios)
    bold = front(
        [
            c
            for c in cheaper
            if c.costs.cost < least and c.costs.loss <= allowed and not c.costs.is_feasible
        ],
        safe_and_cheap,
    )
    return tested + bold[:BEYOND]
