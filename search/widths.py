"""From a network to the choice tables of some of its widths.

Each channel group by itself is tried at a few widths: how far the answers are then from those of
the whole network, and how many MACs are left. A knapsack over the groups gives widths for every
loss; some of these, at equal ratios of cost, are timed and analysed like a network that came so.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.calibration import evaluating, trace
from compress.gradients import Likelihood
from compress.layers import inspect
from compress.plan import Choice
from compress.recurrent.opened import opened
from search.analysis import analyse, empty_table
from search.baseline import macs_of
from search.config import SearchConfig
from search.joint import JointTable, Table
from search.knapsack import front
from search.metrics import likelihood
from search.pareto import nearest
from search.progress import Report
from search.strategy import Point
from search.subject import Subject
from search.table import ChoiceRow, ChoiceTable, LayerRow, Start

SHARES: Final = (0.75, 0.5, 0.375, 0.25, 0.1875, 0.125)  # of a group's channels that are kept
MULTIPLE: Final = 8  # of channels, which kernels take in blocks; of few channels half of it
MOST_LOSS: Final = 0.5  # nats or squared units: answers that far off are not worth starting from
WIDTHS: Final = 5  # of the network, beside its own
RACE_SECONDS: Final = 0.3
GROUPS_SHARE: Final = 0.1  # of the analysis, in the progress that is reported


def analyse_all(subject: Subject, config: SearchConfig, report: Report) -> Table:
    """The choice table of a network; where widths are ordered, of it at several.

    Args:
        subject: the network.
        config: as `analyse` takes it.
        report: told how far the analysis is.

    Raises:
        ConfigError: a layer is excluded that the network does not have.
        CompressError: an activation of the network is not finite.
    """
    if not config.widths:
        return analyse(subject, config, report)
    starts = _starts(subject, config, report)
    tables = []
    for number, start in enumerate((None, *starts)):

        def onward(fraction: float, sentence: str, before: int = number) -> None:
            done = (before + fraction) / (len(starts) + 1)
            report(GROUPS_SHARE + (1 - GROUPS_SHARE) * done, sentence)

        table = replace(empty_table(subject, config), narrowed=start)
        narrowed = subject.narrowed(table.start.widths)
        tables.append(scaled(analyse(narrowed, config, onward, table)))
    return JointTable(tuple(tables), subject.narrower.refusals)


def widths_of(channels: int) -> tuple[int, ...]:
    """The widths that a group is tried at, falling."""
    multiple = MULTIPLE if channels >= 8 * MULTIPLE else MULTIPLE // 2
    rounded = (max(multiple, round(share * channels / multiple) * multiple) for share in SHARES)
    return tuple(dict.fromkeys(width for width in rounded if width < channels))


def scaled(table: ChoiceTable) -> ChoiceTable:
    """With times of layers that, together, are no more than that of the network at its start.

    Layers that are timed alone may take longer than the whole that they are part of. Within a table
    all would be wrong alike; against the other tables it would win for that.
    """
    alone = sum(layer.dense.latency_ms for layer in table.layers)
    scale = min(1.0, table.start.latency_ms / alone) if alone else 1.0
    layers = (
        replace(
            layer,
            choices=tuple(replace(row, latency_ms=scale * row.latency_ms) for row in layer.choices),
        )
        for layer in table.layers
    )
    return replace(table, layers=tuple(layers))


def _starts(subject: Subject, config: SearchConfig, report: Report) -> list[Start]:
    """Some widths of the network by rising loss and falling cost."""
    groups = subject.narrower.groups
    trial = _Trial(subject, likelihood(config.budget.metric))
    dense, layers = empty_table(subject, config), list[LayerRow]()
    for number, (name, group) in enumerate(groups.items()):
        report(GROUPS_SHARE * number / len(groups), f"trying the widths of {name}")
        starts = [trial.untimed({name: width}) for width in widths_of(group.channels)]
        rows = [_row(dense, start) for start in (dense.start, *starts) if math.isfinite(start.loss)]
        layers.append(LayerRow(name=name, choices=tuple(rows)))
    table = ChoiceTable(
        layers=tuple(layers), dense_latency_ms=1, dense_parameters=1, dense_macs=1, kept_dense={}
    )
    points = [point for point in front(table) if any(point) and table.loss(point) <= MOST_LOSS]
    chosen = (table.plan(point) for point in _spaced(table, points))
    found = [trial.timed({name: choice.ranks[0] for name, choice in plan}) for plan in chosen]
    return [start for start in found if math.isfinite(start.loss)]


def _row(dense: ChoiceTable, start: Start) -> ChoiceRow:
    """The whole network with one group at another width, as a choice of that group.

    Its cost is the logarithm of a share, less what dense has, 1: two groups leave the product of
    what each leaves, of the layer between them, and hardly less of the network.
    """
    width = next(iter(start.widths.values()), None)
    return ChoiceRow(
        choice=None if width is None else Choice("width", (width,)),
        loss=start.loss,
        latency_ms=1 + math.log(dense.row_cost(start)),
        parameters=0,
        macs=0,
    )


def _spaced(table: ChoiceTable, points: Sequence[Point]) -> list[Point]:
    """Of a front's points so many, at about equal distances in cost; the cheapest is one."""
    if not points:
        return []
    most = 1 - table.cost(points[-1])
    return nearest(points, table.cost, (1 - most * n / WIDTHS for n in range(1, WIDTHS + 1)))


class _Trial:
    """Narrow networks, compared with the dense one's answers and timed against it."""

    def __init__(self, subject: Subject, likelihood: Likelihood) -> None:
        self._subject = subject
        self._distance = _squares if likelihood == "values" else _divergence
        with evaluating(subject.dense):
            self._answers = [subject.dense(batch) for batch in subject.calibration]

    def untimed(self, widths: Mapping[str, int]) -> Start:
        """What a network of these widths starts from, were it as fast as it has few MACs.

        Its loss may be no finite number.
        """
        return self._start(widths, self._subject.narrower.network(widths))

    def timed(self, widths: Mapping[str, int]) -> Start:
        """What a network of these widths starts from."""
        subject = self._subject
        network = subject.narrower.network(widths)
        start = self._start(widths, network)
        subject.simplify_(network)
        timed = subject.race({"narrow": network}, seconds=RACE_SECONDS)
        share = timed.ratios["narrow"].median
        return replace(start, latency_ms=share * subject.baseline.latency_ms.p50_ms)

    def _start(self, widths: Mapping[str, int], network: nn.Module) -> Start:
        subject = self._subject
        with evaluating(network):
            lost = [
                self._distance(network(batch).double(), wanted.double())
                for batch, wanted in zip(subject.calibration, self._answers, strict=True)
            ]
        traces = trace(opened(network), subject.example)
        macs, baseline = macs_of(inspect(network), traces), subject.baseline
        return Start(
            widths=dict(widths),
            loss=float(torch.cat(lost).mean().clamp_min(0.0)),  # round-off; NaN stays
            latency_ms=baseline.latency_ms.p50_ms * macs / baseline.macs,
            parameters=sum(weight.numel() for weight in network.parameters()),
            macs=macs,
        )


def _divergence(answers: Tensor, wanted: Tensor) -> Tensor:
    """(N,) of Kullback and Leibler, in nats."""
    found, target = (each.log_softmax(1) for each in (answers, wanted))
    return F.kl_div(found, target, reduction="none", log_target=True).flatten(1).sum(1)


def _squares(answers: Tensor, wanted: Tensor) -> Tensor:
    """(N,) half of the squared distance: the loss of values of variance one."""
    return (answers - wanted).square().flatten(1).sum(1) / 2
