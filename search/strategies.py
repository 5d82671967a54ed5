"""Which class searches for a configuration."""

from typing import assert_never

from search.config import (
    EstimationConfig,
    GeneticConfig,
    StrategyConfig,
    UniformConfig,
    VbmfConfig,
)
from search.estimation import EstimationSearch
from search.genetic import GeneticSearch
from search.joint import Table
from search.song import SongSearch
from search.strategy import Strategy
from search.table import ChoiceTable
from search.uniform import UniformSearch
from search.vbmf_search import VbmfSearch


def make_strategy(config: StrategyConfig, table: Table) -> Strategy:
    """The search that `config` describes, over the points of `table`."""
    if isinstance(config, EstimationConfig) and config.by == "loss":
        return EstimationSearch(table, config)
    assert isinstance(table, ChoiceTable)  # widths are refused with any other strategy
    match config:
        case EstimationConfig():
            return SongSearch(table, config)
        case GeneticConfig():
            return GeneticSearch(table, config)
        case UniformConfig():
            return UniformSearch(table, config)
        case VbmfConfig():
            return VbmfSearch(table)
    assert_never(config)
