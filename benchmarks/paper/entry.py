"""What is asked of a network: a budget, the circumstances of the timing, and a way to search."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from benchmarks.case import CIFAR10, MNIST, RESNET, VGG, Case
from benchmarks.rivals.plain_genetic import PlainGeneticSearch
from search.config import (
    Augmentation,
    Budget,
    EstimationConfig,
    GeneticConfig,
    Method,
    Objective,
    Recovery,
    Runtime,
    SearchConfig,
    StrategyConfig,
)
from search.strategies import make_strategy
from search.strategy import Strategy
from search.table import ChoiceTable

Kind = Literal["paper", "ours", "rival"]
Setting = tuple[Runtime, int]
"""A runtime and a batch size."""

SETTINGS: tuple[Setting, ...] = (
    ("eager", 1),
    ("eager", 64),
    ("onnxruntime", 1),
    ("onnxruntime", 64),
)
BEST: Setting = ("onnxruntime", 1)
LARGE: Setting = ("onnxruntime", 64)

MOST_EVALUATIONS = 120
PAPER_SECONDS = 4.0  # of fine-tuning, for each network that the paper's searches ask about
POPULATION = 10
SECONDS = 30.0  # of training that a candidate gets where ours, or the rival's, are trained
# On the labels too, as in the paper.
TRAINED = Recovery(method="finetune", max_seconds=SECONDS)
LONGER = replace(TRAINED, max_seconds=4 * SECONDS)
# As the networks of today were trained themselves: they know their pictures by heart.
VARIED = replace(TRAINED, augment=Augmentation(flip=True, shift=4))
PRUNED = (TRAINED, VARIED)  # in the rival's rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A row of the table to be: who chooses the ranks, and for what."""

    method: str
    kind: Kind
    config: SearchConfig
    strategy: Callable[[ChoiceTable], Strategy]
    max_evaluations: int = MOST_EVALUATIONS

    @property
    def key(self) -> str:
        """What its row is kept under."""
        objective, trained = self.config.objective, key_of(self.config.recovery)
        where = f"{objective.runtime}-{objective.batch}"
        return f"{self.method}-{self.config.budget.max_loss:g}-{where}{trained}".replace(" ", "-")


def entries(case: Case) -> list[Entry]:
    """All that is asked of one network, the paper's own searches first."""
    return list(_ENTRIES[case.name]())


def config_of(max_loss: float, setting: Setting, recovery: Recovery | None = None) -> SearchConfig:
    """An order by the point estimate, as the paper has it, for one thread of a CPU."""
    runtime, batch = setting
    return SearchConfig(
        budget=Budget(max_loss=max_loss, unit="points", confidence=None),
        objective=Objective(device="cpu", runtime=runtime, batch=batch),
        recovery=recovery or Recovery(),
    )


def pruning_budgets(case: Case, recovery: Recovery) -> tuple[float, ...]:
    """At which the rival prunes: those at which ours are trained alike."""
    alike = (e for e in entries(case) if e.kind == "ours" and e.config.recovery == recovery)
    return tuple(dict.fromkeys(e.config.budget.max_loss for e in alike))


def key_of(recovery: Recovery) -> str:
    """The part of a row's key that says how candidates are trained."""
    if recovery.method == "none":
        return ""
    varied = "-varied" if recovery.augment else ""
    return f"-{recovery.method}-{recovery.max_seconds:g}{varied}"


def _ours(
    max_loss: float,
    setting: Setting,
    recovery: Recovery | None = None,
    search: StrategyConfig | None = None,
) -> Entry:
    asked = search or EstimationConfig()
    return Entry(
        method=asked.strategy,
        kind="ours",
        config=config_of(max_loss, setting, recovery),
        strategy=partial(make_strategy, asked),
    )


def _wide(entry: Entry, layers: tuple[str, ...] = ()) -> Entry:
    """The same with widths beside ranks; with widths alone if all layers are named."""
    return replace(
        entry,
        method="widths alone" if layers else "ranks and widths",
        config=replace(entry.config, widths=True, exclude=layers),
    )


def _paper(max_loss: float, linear: tuple[str, ...]) -> Iterator[Entry]:
    """Song's two searches over convolutions, each network fine-tuned before it is measured."""
    by_parameters = EstimationConfig(by="parameters")
    searches: tuple[tuple[str, Callable[[ChoiceTable], Strategy]], ...] = (
        ("PE", partial(make_strategy, by_parameters)),
        ("Gene", partial(PlainGeneticSearch, seed=0, population=POPULATION)),
    )
    methods: tuple[tuple[str, Method], ...] = (("CP", "cp4"), ("Tucker", "tucker2"))
    tuned = Recovery(method="finetune", max_seconds=PAPER_SECONDS)
    for search, strategy in searches:
        for name, method in methods:
            config = config_of(max_loss, BEST, tuned)
            yield Entry(
                method=f"{search}-{name}",
                kind="paper",
                config=replace(config, methods=(method,), exclude=linear),
                strategy=strategy,
                max_evaluations=4 * POPULATION if search == "Gene" else MOST_EVALUATIONS,
            )


def _mnist() -> Iterator[Entry]:
    yield from _paper(0.35, ("hidden", "classify"))
    yield from (_ours(0.35, setting) for setting in SETTINGS)
    yield _ours(0.35, BEST, search=GeneticConfig())
    yield from (_ours(max_loss, BEST, TRAINED) for max_loss in (0.05, 0.1, 0.35, 0.5))
    yield _ours(0.35, LARGE, TRAINED)
    yield _wide(_ours(0.35, BEST, TRAINED))
    yield _wide(_ours(0.35, BEST))
    yield _wide(_ours(0.35, BEST, TRAINED), ("conv1", "conv2", "hidden", "classify"))


def _cifar() -> Iterator[Entry]:
    yield from _paper(5.13, ("hidden", "narrow", "classify"))
    yield from (_ours(5.13, setting) for setting in SETTINGS)
    yield from (_ours(1.0, setting) for setting in (BEST, LARGE))
    yield _ours(1.0, BEST, search=GeneticConfig())
    yield from (_ours(max_loss, BEST, TRAINED) for max_loss in (0.5, 1.0))
    yield _ours(1.0, LARGE, TRAINED)
    yield _ours(1.0, BEST, LONGER)
    yield _wide(_ours(1.0, BEST, TRAINED))
    yield _wide(_ours(1.0, BEST, LONGER))
    yield _wide(_ours(1.0, BEST))
    yield _wide(_ours(1.0, BEST, TRAINED), ("conv1", "conv2", "hidden", "narrow", "classify"))


def _modern() -> Iterator[Entry]:
    """Without training at half a point, one and two; with it at none and half a point."""
    yield from (_ours(max_loss, BEST) for max_loss in (0.5, 1.0, 2.0))
    yield _ours(0.5, BEST, search=GeneticConfig())
    yield from (_ours(max_loss, BEST, TRAINED) for max_loss in (0.0, 0.5))
    yield _ours(0.0, BEST, VARIED)
    yield _wide(_ours(0.5, BEST))


_ENTRIES: dict[str, Callable[[], Iterator[Entry]]] = {
    MNIST.name: _mnist,
    CIFAR10.name: _cifar,
    RESNET.name: _modern,
    VGG.name: _modern,
}
