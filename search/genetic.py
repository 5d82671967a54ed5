"""Genetic search, one gene a layer: NSGA-II with constraint domination and screened children.

Deb, Pratap, Agarwal and Meyarivan, "A fast and elitist multiobjective genetic algorithm: NSGA-II"
(2002). What is minimised comes before parameters, the budget before both.
"""

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

from deap import base, tools

from search.config import GeneticConfig
from search.knapsack import cheapest, front
from search.prediction import saving_scale
from search.reweighting import reweighted
from search.strategy import Candidate, Costs, Point
from search.table import ChoiceTable
from search.uniform import uniform_points

ANY_CHOICE = 0.2  # of the mutations; the others go to a neighbour in the table
LEAST_LIMIT = 1e-9  # of predicted loss, which is a share of the squared output: round-off


class ConstrainedCosts(base.Fitness):  # type: ignore[misc]  # deap has no types
    """Costs as DEAP compares them; within the budget before outside it (Deb's definition 1)."""

    weights = (-1.0, -1.0)

    def __init__(self, costs: Costs) -> None:
        super().__init__((costs.cost, costs.parameter_share))
        self.violation = max(0.0, costs.violation)

    def dominates(self, other: "ConstrainedCosts", obj: slice = slice(None)) -> bool:
        """Less violation, or the same and no worse in either cost but better in one."""
        if self.violation != other.violation:
            return self.violation < other.violation
        return bool(super().dominates(other, obj))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ConstrainedCosts)
            and self.violation == other.violation
            and self.wvalues == other.wvalues
        )

    def __hash__(self) -> int:
        return hash((self.violation, self.wvalues))


class Parent(list[int]):
    """Genes of an evaluated candidate, in the form that DEAP's operators take."""

    def __init__(self, candidate: Candidate) -> None:
        super().__init__(candidate.point)
        self.fitness = ConstrainedCosts(candidate.costs)  # the name that DEAP looks for


class GeneticSearch:
    """Ask for a generation, tell its candidates, ask for the next.

    Each generation draws from (seed, generation) and depends only on the candidates told, in
    whatever order a generation's own come. Failed candidates never become parents.
    """

    def __init__(
        self, table: ChoiceTable, config: GeneticConfig, seeds: Sequence[Candidate] = ()
    ) -> None:
        """`seeds` are candidates of an earlier search: known, and not asked for again."""
        self._table = table
        self._config = config
        self._generation = 0
        self._told = list(seeds)
        self._parents: list[Parent] = []
        self._operators = base.Toolbox()
        self._operators.register("mate", tools.cxUniform, indpb=0.5)
        self._operators.register("mutate", mutate, sizes=table.sizes, chance=config.mutation_rate)
        self._operators.register("select", tools.selNSGA2, k=config.population)

    def ask(self) -> list[Point]:
        if self._generation == self._config.generations:
            return []
        with drawing_from(self._config.seed, self._generation):
            return self._children() if self._generation else self._first()

    def tell(self, candidates: list[Candidate]) -> None:
        self._told += sorted(candidates, key=lambda candidate: candidate.point)
        pool = [Parent(c) for c in self._told if not has_failed(c.costs)]
        self._parents = self._operators.select(pool)
        self._generation += 1

    def _first(self) -> list[Point]:
        """Half of the generation from the estimation front, a third uniform, the rest random."""
        size = self._config.population
        seeds = chain(
            spread(front(self._table), size // 2),
            spread(uniform_points(self._table), size // 3),
        )
        points = dict.fromkeys(seeds)
        points.update(dict.fromkeys(self._random() for _ in range(size)))
        known = self._known()
        return [point for point in points if point not in known][:size]

    def _children(self) -> list[Point]:
        """The front's point at the limit, then for each place the best of `screening` children.

        Both by losses that are weighed anew, by all that was measured so far.
        """
        known, table = self._known(), reweighted(self._table, self._told)
        scale, limit = saving_scale(table, self._told), loss_limit(table, self._told)

        def promise(point: Point) -> float:
            """Predicted cost, and a penalty for the loss beyond the limit."""
            saved = 1 - table.cost(point)
            return 1 - scale * saved + max(0.0, table.loss(point) / limit - 1)

        crossing = cheapest(table, front(table), limit)
        points = [] if crossing in known else [crossing]
        known.add(crossing)
        for _ in range(self._config.population - len(points)):
            children = {self._child() for _ in range(self._config.screening)} - known
            if children:
                points.append(min(children, key=lambda point: (promise(point), point)))
                known.add(points[-1])
        return points

    def _known(self) -> set[Point]:
        """What was told, and the dense network, which needs no asking."""
        dense = set() if self._table.narrowed else {self._table.dense_point}
        return dense | {candidate.point for candidate in self._told}

    def _child(self) -> Point:
        if not self._parents:
            return self._random()
        mother, father = (list(random.choice(self._parents)) for _ in range(2))
        if random.random() < self._config.crossover_rate:
            self._operators.mate(mother, father)
        self._operators.mutate(mother)
        return tuple(mother)

    def _random(self) -> Point:
        return tuple(random.randrange(size) for size in self._table.sizes)


def has_failed(costs: Costs) -> bool:
    """Whether any cost that the search goes by is NaN."""
    return any(map(math.isnan, (costs.violation, costs.cost, costs.parameter_share)))


def mutate(genes: list[int], sizes: Point, chance: float) -> tuple[list[int]]:
    """Change each gene with a chance, in place: mostly by one step, else to any choice."""
    for i, size in enumerate(sizes):
        if random.random() < chance:
            if random.random() < ANY_CHOICE:
                genes[i] = random.randrange(size)
            else:
                genes[i] = min(max(genes[i] + random.choice((-1, 1)), 0), size - 1)
    return (genes,)


def spread(points: Sequence[Point], count: int) -> list[Point]:
    """Some of the points at equal distances, the first left out and the last included."""
    count = min(count, len(points))
    return [points[round((i + 1) * len(points) / count) - 1] for i in range(count)]


def loss_limit(table: ChoiceTable, told: list[Candidate]) -> float:
    """The predicted loss that best divides the candidates within the budget from the others.

    Infinite while all are within, half of the least while none is; failed ones are not within.
    """
    known = sorted(told, key=lambda c: (table.loss(c.point), c.point))
    losses = [table.loss(c.point) for c in known]
    # How many are on the wrong side if the first k count as within.
    wrong = [sum(c.costs.is_feasible for c in known)]
    for candidate in known:
        wrong.append(wrong[-1] + (-1 if candidate.costs.is_feasible else 1))
    k = max(range(len(wrong)), key=lambda i: (-wrong[i], i))
    if k == len(known):
        return math.inf
    return max(LEAST_LIMIT, math.sqrt(losses[k - 1] * losses[k]) if k else losses[0] / 2)


@contextmanager
def drawing_from(seed: int, generation: int) -> Iterator[None]:
    """Seed Python's global generator, which DEAP draws from, and put it back afterwards."""
    state = random.getstate()
    random.seed(f"{seed}:{generation}")
    try:
        yield
    finally:
        random.setstate(state)
