"""A genetic algorithm as DEAP's tutorial has it, from random ranks: nothing is known beforehand.

Song et al. 2021 (J. Software 32(11):3468) search ranks by one; of its operators and its sizes only
the objective is published, the fastest network within the loss allowed. The rest is DEAP's
`eaSimple` with its customary rates.
"""

import math
import random

from deap import base, tools

from search.genetic import drawing_from
from search.strategy import Candidate, Costs, Point
from search.table import ChoiceTable

CROSSOVER_RATE = 0.5
MUTATION_RATE = 0.2
TOURNAMENT = 3
IDLE = 100  # generations without a new point that end the search


class _Share(base.Fitness):  # type: ignore[misc]  # deap has no types
    weights = (-1.0,)


class _Individual(list[int]):
    def __init__(self, point: Point, share: float) -> None:
        super().__init__(point)
        self.fitness = _Share((share,))  # the name that DEAP looks for


class PlainGeneticSearch:
    """A generation an ask, of points that are new."""

    def __init__(self, table: ChoiceTable, seed: int, population: int = 20) -> None:
        self._table = table
        self._seed = seed
        self._size = population
        self._generation = 0
        self._parents: list[Point] = []
        self._population: list[Point] = []
        self._shares: dict[Point, float] = {table.dense_point: 1.0}

    def ask(self) -> list[Point]:
        for _ in range(IDLE):
            new = dict.fromkeys(p for p in self._population if p not in self._shares)
            if new:
                return list(new)
            self._parents = self._population
            with drawing_from(self._seed, self._generation):
                self._population = self._next()
            self._generation += 1
        return []

    def tell(self, candidates: list[Candidate]) -> None:
        self._shares |= {c.point: penalised(c.costs) for c in candidates}

    def _next(self) -> list[Point]:
        if not self._parents:
            sizes = self._table.sizes
            return [tuple(map(random.randrange, sizes)) for _ in range(self._size)]
        individuals = [_Individual(p, self._shares[p]) for p in self._parents]
        chosen = tools.selTournament(individuals, self._size, tournsize=TOURNAMENT)
        genes = [list(individual) for individual in chosen]
        for mother, father in zip(genes[::2], genes[1::2], strict=False):
            if random.random() < CROSSOVER_RATE:
                tools.cxUniform(mother, father, indpb=0.5)
        most = [size - 1 for size in self._table.sizes]
        for child in genes:
            if random.random() < MUTATION_RATE:
                tools.mutUniformInt(child, [0] * len(most), most, indpb=1 / len(most))
        return [tuple(child) for child in genes]


def penalised(costs: Costs) -> float:
    """T / T_dense within the budget; beyond it worse than dense by the loss that is too much."""
    if costs.is_feasible:
        return costs.time_share
    return math.inf if math.isnan(costs.violation) else 1 + costs.violation
