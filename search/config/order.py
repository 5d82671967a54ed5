"""The whole order: the promise, the circumstances, the strategy and what it may cost."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt

from compress.catalog import ALL_METHODS, DEFAULT_METHODS
from compress.recurrent.modes import Modes
from search.config.budget import Budget
from search.config.errors import ConfigError
from search.config.modes import WeightModes
from search.config.objective import Objective
from search.config.recovery import Recovery
from search.config.strategies import EstimationConfig, GeneticConfig, StrategyConfig

Method = Literal[
    "svd",
    "spatial_svd",
    "tucker2",
    "cp3",
    "cp4",
    "tensor_train",
    "block_term",
    "kronecker",
    "semi_tensor",
    "hierarchical_tucker",
    "kcp",
    "cp",
    "tucker",
    "tensor_train_matrix",
    "tensor_ring",
]

# What an error of a layer is weighed by. "output": all its outputs alike, relative to their size.
# "loss": how much the network's loss feels each of them, to second order; found by one pass
# backward, without labels.
Importance = Literal["output", "loss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a job may spend. Time in the queue does not count."""

    max_seconds: Annotated[float, Gt(0)] = 7200.0
    max_evaluations: Annotated[int, Ge(1)] = 400
    max_memory_bytes: Annotated[int, Ge(2**24)] = 4 * 2**30
    """Of one decomposition. Above it a layer is decomposed in a coarser norm, or not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConfig:
    """A whole order: the promise, the circumstances, the strategy and what it may cost."""

    budget: Budget
    objective: Objective = field(default_factory=Objective)
    methods: tuple[Method, ...] = DEFAULT_METHODS
    exclude: tuple[str, ...] = ()
    modes: tuple[WeightModes, ...] = ()
    """Of weights of recurrent layers; of those that are not here, the two nearest to a root."""
    importance: Importance = "loss"
    widths: bool = False
    """Whether channels may be taken out of groups of them too: what no rank makes less of, the
    activations between layers and layers of few inputs, gets faster with them."""
    search: StrategyConfig = field(default_factory=EstimationConfig)
    recovery: Recovery = field(default_factory=Recovery)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.recovery.method == "finetune" and self.budget.metric == "mse":
            raise ConfigError(
                "recovery finetune came with the metric mse, whose answers are no classes to have "
                "labels of: choose recovery distil"
            )
        if self.widths and (self.importance != "loss" or not _takes_widths(self.search)):
            raise ConfigError(
                f"widths came with strategy {self.search.strategy} and importance "
                f"{self.importance}: they are searched by the strategies estimation (by loss) "
                "and genetic alone, with importance loss"
            )
        if not self.methods or len(set(self.methods)) != len(self.methods):
            raise ConfigError(
                f"methods {self.methods} came, one or more of {ALL_METHODS} were wanted"
            )
        if len({each.weight for each in self.modes}) != len(self.modes):
            raise ConfigError(f"modes {self.modes} came, those of each weight once were wanted")

    def modes_of(self, weight: str) -> Modes | None:
        """Those that are ordered for a weight, None for the default."""
        return next((each.modes for each in self.modes if each.weight == weight), None)


def _takes_widths(search: StrategyConfig) -> bool:
    if isinstance(search, EstimationConfig):
        return search.by == "loss"
    return isinstance(search, GeneticConfig)
