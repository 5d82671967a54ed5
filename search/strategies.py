"""Which class searches for a configuration."""

from functools import partial
from typing import assert_never

from search.config import (
    EstimationConfig,
    GeneticConfig,
    StrategyConfig,
    UniformConfig,
    VbmfConfig,
)
from search.estimation import EstimationSearch
from search.joint import JointTable, Table
from search.song import SongSearch
from search.stages import GeneticStage, InTurn, Stage
from search.strategy import Strategy
from search.table import ChoiceTable
from search.uniform import UniformSearch
from search.vbmf_search import VbmfSearch


def make_strategy(config: StrategyConfig, table: Table) -> Strategy:
    """The search that `config` describes, over the points of `table`."""
    if isinstance(config, EstimationConfig) and config.by == "loss":
        return InTurn(_estimations(config, table))
    if isinstance(config, GeneticConfig):
        evolving = partial(GeneticStage, table, config)
        return InTurn([*_estimations(EstimationConfig(), table), evolving])
    assert isinstance(table, ChoiceTable)  # others are refused with widths
    match config:
        case EstimationConfig():
            return SongSearch(table, config)
        case UniformConfig():
            return UniformSearch(table, config)
        case VbmfConfig():
            return VbmfSearch(table)
    assert_never(config)


def _estimations(config: EstimationConfig, table: Table) -> list[Stage]:
    """Of several widths at first the network's own alone."""
    own = [JointTable(table.tables[:1])] if isinstance(table, JointTable) else []
    return [partial(EstimationSearch, each, config) for each in (*own, table)]
