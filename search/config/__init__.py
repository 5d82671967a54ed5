"""What a job asks for: frozen dataclasses, without torch.

Each class checks itself, so the same sentence answers a wrong REST body and a wrong call from
Python; `service.schemas` reads these very classes, nothing is declared twice.
"""

from search.config.budget import COUNTED, UNLABELLED, Budget, Metric, Unit
from search.config.errors import ConfigError
from search.config.modes import MOST_MODES, WeightModes
from search.config.objective import (
    GRAPH_RUNTIMES,
    LATENCY,
    ONLY_ON,
    WEIGHTS,
    Minimise,
    Objective,
    Runtime,
    Weights,
)
from search.config.order import Importance, Limits, Method, SearchConfig
from search.config.recovery import MOST_SHIFT, Augmentation, Recovery, RecoveryMethod
from search.config.strategies import (
    EstimationConfig,
    GeneticConfig,
    StrategyConfig,
    UniformConfig,
    VbmfConfig,
)

__all__ = [
    "COUNTED",
    "GRAPH_RUNTIMES",
    "LATENCY",
    "MOST_MODES",
    "MOST_SHIFT",
    "ONLY_ON",
    "UNLABELLED",
    "WEIGHTS",
    "Augmentation",
    "Budget",
    "ConfigError",
    "EstimationConfig",
    "GeneticConfig",
    "Importance",
    "Limits",
    "Method",
    "Metric",
    "Minimise",
    "Objective",
    "Recovery",
    "RecoveryMethod",
    "Runtime",
    "SearchConfig",
    "StrategyConfig",
    "UniformConfig",
    "Unit",
    "VbmfConfig",
    "WeightModes",
    "Weights",
]
