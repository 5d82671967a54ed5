"""The ways to search, each with its knobs."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimationConfig:
    """One number stands for the whole plan.

    by="loss": bisect the total predicted loss, the fastest plan for each by knapsack; ends with
    `max_evaluations`, where widths are ordered with as many more for them.
    by="parameters": Song et al. 2021, algorithm 1: bisect the parameter count, then group search,
    refused where the group search would take more than `max_group_points` evaluations.
    """

    strategy: Literal["estimation"] = "estimation"
    by: Literal["loss", "parameters"] = "loss"
    max_evaluations: Annotated[int, Ge(1)] = 10
    max_group_points: Annotated[int, Ge(1)] = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneticConfig:
    """NSGA-II on one gene a layer, after the estimation and from all that it evaluated."""

    strategy: Literal["genetic"] = "genetic"
    population: Annotated[int, Ge(4), Le(512)] = 12
    generations: Annotated[int, Ge(1), Le(1000)] = 6
    crossover_rate: Annotated[float, Ge(0), Le(1)] = 0.7
    mutation_rate: Annotated[float, Ge(0), Le(1)] = 0.25
    screening: Annotated[int, Ge(1), Le(1000)] = 20
    seed: Annotated[int, Ge(0)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformConfig:
    """The same parameter share in every layer, bisected: the baseline that users know."""

    strategy: Literal["uniform"] = "uniform"
    max_evaluations: Annotated[int, Ge(1)] = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class VbmfConfig:
    """Analytic ranks from empirical variational Bayes: one answer, no knob for the budget."""

    strategy: Literal["vbmf"] = "vbmf"


StrategyConfig = EstimationConfig | GeneticConfig | UniformConfig | VbmfConfig
