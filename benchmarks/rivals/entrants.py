"""Who takes part: each with its rule, what it asks about, and whether chance plays a part."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Protocol

from torch import nn

from benchmarks.rivals import fasterai_tucker, jacobgil, pruning
from benchmarks.rivals.contest import Evaluated
from benchmarks.rivals.energy import EnergySearch, energies_of
from benchmarks.rivals.evaluation import Networks, Points
from benchmarks.rivals.greedy import GreedySearch
from benchmarks.rivals.journal import Journal
from benchmarks.rivals.optuna_search import OptunaSearch, nsga2, tpe
from benchmarks.rivals.plain_genetic import PlainGeneticSearch
from search.config import EstimationConfig, GeneticConfig, UniformConfig, VbmfConfig
from search.ladder import LadderSearch
from search.strategies import make_strategy
from search.strategy import Point, Strategy
from search.subject import Subject
from search.table import ChoiceTable

Kind = Literal["ours", "rule", "search", "recipe"]
"""rule: ranks by a formula and one knob; search: ranks by trying; recipe: networks of its own."""


class Evaluate(Protocol):
    """Finds out what a point costs, and makes the network that it stands for."""

    name: str
    """What its points are points of."""

    def __call__(self, point: Point, /) -> Evaluated: ...

    def network(self, point: Point) -> nn.Module: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """One that takes part."""

    name: str
    kind: Kind
    strategy: Callable[[int], Strategy]
    """A new search, given a seed."""
    evaluate: Evaluate
    is_random: bool = False


def entrants(subject: Subject, table: ChoiceTable, journal: Journal) -> Iterator[Entrant]:
    """All of them, ours first; each prepares its work when its turn has come."""
    points = Points(subject, table, journal)
    ranks = partial(Entrant, evaluate=points)
    yield ranks(
        name="estimation",
        kind="ours",
        strategy=lambda _: make_strategy(EstimationConfig(), table),
    )
    yield ranks(
        name="uniform share",
        kind="rule",
        strategy=lambda _: make_strategy(UniformConfig(), table),
    )
    energies = energies_of(subject, table)
    yield ranks(
        name="energy threshold", kind="rule", strategy=lambda _: EnergySearch(table, energies)
    )
    yield ranks(
        name="EVBMF ranks",
        kind="rule",
        strategy=lambda _: make_strategy(VbmfConfig(), table),
    )
    yield ranks(name="AIMET's greedy", kind="search", strategy=lambda _: GreedySearch(table))
    own = partial(Networks, subject, journal)
    yield Entrant(
        name="jacobgil's EVBMF Tucker",
        kind="recipe",
        strategy=lambda _: LadderSearch([(0,)]),
        evaluate=own("jacobgil", jacobgil.build),
    )
    yield Entrant(
        name="fasterai's Tucker by energy",
        kind="recipe",
        strategy=lambda _: LadderSearch([(i,) for i in range(len(fasterai_tucker.ENERGIES))]),
        evaluate=own("fasterai", fasterai_tucker.build),
    )
    layers, pruned = len(pruning.prunable(subject)), own("pruned", pruning.build)
    yield Entrant(
        name="Torch-Pruning",
        kind="recipe",
        strategy=lambda _: pruning.PruningSearch(layers),
        evaluate=pruned,
    )
    yield Entrant(
        name="fasterai's sensitivity pruning",
        kind="recipe",
        strategy=lambda _: pruning.SensitivityPruningSearch(layers),
        evaluate=pruned,
    )
    chance = partial(ranks, is_random=True)
    generations = GeneticConfig(generations=1000)  # until the evaluations are spent
    yield chance(
        name="genetic",
        kind="ours",
        strategy=lambda seed: make_strategy(replace(generations, seed=seed), table),
    )
    yield chance(
        name="plain DEAP", kind="search", strategy=lambda seed: PlainGeneticSearch(table, seed)
    )
    yield chance(
        name="Optuna TPE", kind="search", strategy=lambda seed: OptunaSearch(table, seed, tpe)
    )
    yield chance(
        name="Optuna NSGA-II", kind="search", strategy=lambda seed: OptunaSearch(table, seed, nsga2)
    )
