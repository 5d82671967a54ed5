"""Optuna's samplers over the indices of the choices: the least time, the budget a constraint."""

import math
from collections.abc import Callable

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.trial import Trial, TrialState

from search.strategy import Candidate, Costs, Point
from search.table import ChoiceTable

REPEATED = 200  # questions known already, one after the other, that end the search
POPULATION = 20  # the default, 50, leaves 100 evaluations two generations


def tpe(seed: int) -> BaseSampler:
    """Tree-structured Parzen estimators (Bergstra et al., 2011), at Optuna's defaults."""
    return TPESampler(seed=seed)


def nsga2(seed: int) -> BaseSampler:
    """NSGA-II (Deb et al., 2002), at Optuna's defaults but for the population."""
    return NSGAIISampler(population_size=POPULATION, seed=seed)


class OptunaSearch:
    """One point an ask. What a sampler asks again is answered from what was told."""

    def __init__(
        self, table: ChoiceTable, seed: int, sampler: Callable[[int], BaseSampler]
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(sampler=sampler(seed))
        self._sizes: dict[str, BaseDistribution] = {
            layer.name: IntDistribution(0, len(layer.choices) - 1) for layer in table.layers
        }
        dense = Costs(0.0, 0.0, time_share=1.0, parameter_share=1.0, mac_share=1.0, cost=1.0)
        self._told = {table.dense_point: dense}
        self._asked: tuple[Point, Trial] | None = None

    def ask(self) -> list[Point]:
        for _ in range(REPEATED):
            if self._asked is None:
                trial = self._study.ask(self._sizes)
                self._asked = tuple(trial.params[name] for name in self._sizes), trial
            point, trial = self._asked
            if point not in self._told:
                return [point]
            self._answer(trial, self._told[point])
        return []

    def tell(self, candidates: list[Candidate]) -> None:
        self._told |= {c.point: c.costs for c in candidates}

    def _answer(self, trial: Trial, costs: Costs) -> None:
        self._asked = None
        if math.isnan(costs.violation) or math.isnan(costs.time_share):
            self._study.tell(trial, state=TrialState.FAIL)
            return
        trial.set_constraint("budget", costs.violation)
        self._study.tell(trial, costs.time_share)
