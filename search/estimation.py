"""One number stands for the whole plan: the total predicted loss.

Song et al. 2021 bisect the total of the parameters and then search groups of ranks, which is
exponential in depth. Here the knapsack front holds the cheapest plan for each total predicted
loss, so the measured loss alone has to be bisected, at any depth. Then safer plans are evaluated
too, for the case that other images refuse the best, and single layers are swapped last.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence

from search.config import EstimationConfig
from search.joint import Table, front
from search.prediction import saving_scale
from search.strategy import Candidate, Point, best

# Shares of the dense cost: a bracket this narrow, a gain this small is not worth an evaluation.
NARROW = 0.01
GAIN = 0.001
# An evaluation has paid if it leaves at most this much of the bracket, else bisection is next.
PAID = 0.6
# Of the predicted loss: as near is near enough to know of widths what they give.
NEAR = 2.0
DEARER = 1.25  # than the best, by prediction: widths are still worth an evaluation
SAFER = (0.5, 0.25)  # of the predicted loss that the budget allows: candidates to fall back on
# Exponents of the power law from predicted to measured loss that two noisy points may show.
EXPONENTS = (0.5, 4.0)


class EstimationSearch:
    """Bisect the front where it crosses the budget, then swap single layers. One point an ask.

    What is asked depends only on the candidates told, in their order.
    """

    def __init__(
        self, table: Table, config: EstimationConfig, seeds: Sequence[Candidate] = ()
    ) -> None:
        """`seeds` are candidates of an earlier search: known, and not counted."""
        self._table = table
        self._max_told = config.max_evaluations + len(seeds)
        self._front = [point for point in front(table) if point != table.dense_point]
        self._losses = [table.loss(point) for point in self._front]
        self._costs = [table.cost(point) for point in self._front]
        self._told = list(seeds)

    def ask(self) -> list[Point]:
        if not self._front or len(self._told) >= self._max_told:
            return []
        point = self._on_front() or self._safer() or self._swap() or self._elsewhere()
        return [point] if point else []

    def tell(self, candidates: list[Candidate]) -> None:
        self._told += candidates

    def _on_front(self) -> Point | None:
        """The next point of the front, unless the crossing is known closely enough."""
        low, high = self._bracket(self._told)
        if high - low == 1:
            return None
        gap = self._gap(low, high)
        if low >= 0 and gap * saving_scale(self._table, self._told) < NARROW:
            return None
        has_paid = gap <= PAID * self._gap(*self._bracket(self._told[:-1]))
        loss = self._crossing(self._at(low), self._at(high)) if has_paid else None
        if loss is None:  # half of the cost that is still open
            cost = (self._cost(low) + self._cost(high)) / 2
            index = bisect_right(self._costs, -cost, key=lambda c: -c)
        else:
            index = bisect_right(self._losses, loss) - 1
        return self._front[min(max(index, low + 1), high - 1)]

    def _bracket(self, told: list[Candidate]) -> tuple[int, int]:
        """Indices of the cheapest point of the front within the budget, and the next one not.

        -1 stands for dense, the length of the front for no point at all.
        """
        known = {candidate.point: candidate.costs.is_feasible for candidate in told}
        asked = [(i, known[point]) for i, point in enumerate(self._front) if point in known]
        low = max((i for i, is_feasible in asked if is_feasible), default=-1)
        high = min((i for i, _ in asked if i > low), default=len(self._front))
        return low, high

    def _cost(self, index: int) -> float:
        """Predicted cost at an end of a bracket."""
        return self._costs[min(index, len(self._costs) - 1)] if index >= 0 else 1.0

    def _gap(self, low: int, high: int) -> float:
        return self._cost(low) - self._cost(high)

    def _at(self, index: int) -> Candidate | None:
        """The candidate at an end of a bracket, None beyond the front."""
        if not 0 <= index < len(self._front):
            return None
        return next(c for c in self._told if c.point == self._front[index])

    def _crossing(self, low: Candidate | None, high: Candidate | None) -> float | None:
        """The predicted loss at which the measured one uses the budget up; None if unknown.

        Between two candidates the loss is taken for a power of the prediction, beyond a single
        one for proportional to it.
        """
        margins = (c.costs.loss - c.costs.violation for c in self._told)
        allowed = max((m for m in margins if math.isfinite(m)), default=0.0)
        if allowed <= 0:
            return None
        ends = [c for c in (low, high) if c is not None]
        lost = [(self._table.loss(c.point), c.costs.violation + allowed) for c in ends]
        logs = [(math.log(x), math.log(y / allowed)) for x, y in lost if x > 0 and 0 < y < math.inf]
        if not logs:
            return None
        exponent = 1.0
        if len(logs) == 2 and logs[1][0] > logs[0][0]:
            exponent = (logs[1][1] - logs[0][1]) / (logs[1][0] - logs[0][0])
            exponent = min(max(exponent, EXPONENTS[0]), EXPONENTS[1])
        predicted, used = min(logs, key=lambda log: abs(log[1]))
        return math.exp(predicted - used / exponent)

    def _limits(self, base: Candidate) -> tuple[float, float]:
        """The predicted loss at which the budget is used up, and the least that was refused."""
        loss = self._table.loss(base.point)
        beyond = [c for c in self._told if not c.costs.is_feasible]
        beyond = [c for c in beyond if self._table.loss(c.point) > loss]
        high = min(beyond, key=lambda c: self._table.loss(c.point), default=None)
        refused = self._table.loss(high.point) if high else math.inf
        return self._crossing(base, high) or refused, refused

    def _safer(self) -> Point | None:
        """Of half, then a quarter of the predicted loss that is allowed, one to fall back on.

        The best of those within the budget on one split is within it by luck in part, and other
        images may refuse it: then it is one of these that is delivered.
        """
        base = best(self._told)
        if base is None or base.costs.cost >= 1:
            return None
        loss = self._table.loss(base.point)
        limit, _ = self._limits(base)
        kept = [self._table.loss(c.point) for c in self._told if c.costs.is_feasible]
        told = {candidate.point for candidate in self._told}
        for share in SAFER:
            wanted = share * limit
            if loss <= wanted:
                return None
            index = bisect_right(self._losses, wanted) - 1
            has_one = any(wanted / 2 < each <= wanted for each in kept)
            if index >= 0 and not has_one and self._front[index] not in told:
                return self._front[index]
        return None

    def _elsewhere(self) -> Point | None:
        """At widths of which nothing near the limit is known, what they give within it.

        Between two widths a predicted cost says less than between two choices of a layer, so one
        that is predicted to be a little dearer is asked for too.
        """
        base = best(self._told)
        if base is None:
            return None
        limit, _ = self._limits(base)
        points = {
            self._table.cost(point): point
            for point in self._table.elsewhere(base.point, limit)
            if not self._is_known(point, limit)
        }
        cost = min(points, default=math.inf)
        return points[cost] if cost <= DEARER * self._table.cost(base.point) else None

    def _is_known(self, point: Point, limit: float) -> bool:
        """Whether its widths kept the budget near the limit, or broke it with no more predicted."""
        for candidate in self._told:
            if candidate.point == point:
                return True
            if self._table.width_of(candidate.point) == self._table.width_of(point):
                loss = self._table.loss(candidate.point)
                if candidate.costs.is_feasible and loss >= limit / NEAR:
                    return True
                if not candidate.costs.is_feasible and loss <= self._table.loss(point):
                    return True
        return False

    def _swap(self) -> Point | None:
        """The cheapest candidate with another choice in one layer, predicted to be cheaper yet.

        Of those the cheapest that is predicted to keep the budget, else the nearest to it.
        """
        base, scale = best(self._told), saving_scale(self._table, self._told)
        if base is None or scale <= 0:
            return None
        loss = self._table.loss(base.point)
        limit, refused = self._limits(base)
        least = GAIN / scale
        told = {candidate.point for candidate in self._told}
        swaps: list[tuple[float, float, Point]] = []
        for point, gain, more in self._table.swaps(base.point):
            swapped = loss + more
            if gain >= least and swapped < refused and point not in told:
                swaps.append((max(0.0, swapped - limit), -gain, point))
        return min(swaps)[2] if swaps else None
