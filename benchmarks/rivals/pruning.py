"""Structured pruning by the package Torch-Pruning (Fang et al., "DepGraph", CVPR 2023).

A point holds, for each layer but the last, the share of its outputs that go, in steps of 5 %.
"""

import copy
import math

import torch_pruning
from torch import nn

from benchmarks.rivals.simple import recalibrated
from search.ladder import LadderSearch
from search.strategy import Candidate, Point
from search.subject import Subject

STEP = 0.05
BOLDEST = 19  # steps
ALONE = 10  # steps, of the layer whose sensitivity is asked
EMPHASIS = 1.5  # exponent of what a layer can bear


def prunable(subject: Subject) -> list[str]:
    """Names of the layers with outputs to prune: all but the last, whose outputs are answers."""
    return _layers(subject)[:-1]


def _layers(subject: Subject) -> list[str]:
    names = [layer.name for layer in subject.layers if layer.shape is not None]
    return [name for name in subject.traces if name in names]


def build(subject: Subject, point: Point) -> nn.Module:
    """Prune a copy of the dense network by group magnitude, each layer by its own share."""
    network = copy.deepcopy(subject.dense).requires_grad_(True)
    ratios = {
        network.get_submodule(name): STEP * steps
        for name, steps in zip(prunable(subject), point, strict=True)
        if steps
    }
    torch_pruning.pruner.MetaPruner(
        network,
        subject.example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(),
        pruning_ratio=0.0,
        pruning_ratio_dict=ratios,
        ignored_layers=[network.get_submodule(_layers(subject)[-1])],
        round_to=4,
    ).step()
    return recalibrated(subject, network)


class PruningSearch(LadderSearch):
    """The package's own way: one share for all layers; here bisected."""

    def __init__(self, layers: int) -> None:
        super().__init__([(steps,) * layers for steps in range(BOLDEST, 0, -1)])


class SensitivityPruningSearch:
    """fasterai's recipe: half of each layer alone, then shares by what each layer could bear.

    fasterai 0.4 has left its sensitivity analysis to another package, and prunes by
    Torch-Pruning itself; so the rule is ours: a layer's share is in proportion to
    (1 - sensitivity)^1.5, sensitivities scaled to [0, 1], and the mean share is bisected.
    """

    def __init__(self, layers: int) -> None:
        self._singles = [
            tuple(ALONE if i == j else 0 for j in range(layers)) for i in range(layers)
        ]
        self._losses: dict[Point, float] = {}
        self._ladder: LadderSearch | None = None

    def ask(self) -> list[Point]:
        if self._ladder is not None:
            return self._ladder.ask()
        return [single for single in self._singles if single not in self._losses]

    def tell(self, candidates: list[Candidate]) -> None:
        if self._ladder is not None:
            self._ladder.tell(candidates)
            return
        self._losses |= {c.point: c.costs.loss for c in candidates}
        if not self.ask():
            asked = {*self._singles, (0,) * len(self._singles)}
            points = shares([self._losses[single] for single in self._singles])
            self._ladder = LadderSearch([point for point in points if point not in asked])


def shares(losses: list[float]) -> list[Point]:
    """Points of falling mean share; a layer whose loss is NaN counts as the most sensitive."""
    known = [max(0.0, loss) for loss in losses if math.isfinite(loss)]
    most = max(known, default=0.0)
    bearing = [
        0.0 if math.isnan(loss) else (1 - max(0.0, loss) / most) ** EMPHASIS if most else 1.0
        for loss in losses
    ]
    mean = sum(bearing) / len(bearing)
    if not mean:
        return []
    return list(
        dict.fromkeys(
            tuple(min(BOLDEST, round(steps * each / mean)) for each in bearing)
            for steps in range(BOLDEST, 0, -1)
        )
    )
