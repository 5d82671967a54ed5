"""Networks that are nothing but their answers, of which the true loss is known."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.special import ndtr

from compress.plan import Choice, Plan
from search.budget import PerSample
from search.config import Metric
from search.measurement import Race, Ratio, Timing
from search.strategy import Point
from search.table import ChoiceRow, ChoiceTable, LayerRow

BATCH = 256
CHOICES = 6
SHARED = 0.5  # of what makes a candidate fail on a sample: the sample is hard for all alike
RECOVERED = 0.3  # samples that a candidate gets right for each that it loses
SURPRISE = 0.4  # of the true loss to the predicted one, standard deviation of the logarithm
TAIL = 1.0  # of squared differences, likewise


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a world is drawn from."""

    metric: Metric
    allowed: float
    """The loss that the budget allows, a share where the metric is counted."""
    search: int
    """Samples of the search split."""
    confirmation: int
    least: float = 0.05
    """The least true loss of a candidate, as a share of what is allowed."""
    most: float = 8.0
    accuracy: float = 0.9


class Answerer:
    """A network: on each split the metric of each sample, and how long it takes."""

    def __init__(self, values: dict[str, Tensor], time_share: float) -> None:
        self.values = values
        self.time_share = time_share


class Split:
    """Samples of a world, in the words of `search.samples.Samples`."""

    def __init__(self, name: str, dense: Tensor) -> None:
        self._name = name
        self._dense = dense.double().numpy()

    def __len__(self) -> int:
        return len(self._dense)

    def dense_values(self, _metric: Metric) -> PerSample:
        return self._dense

    def answers(self, model: Answerer) -> Iterator[Tensor]:
        return iter(model.values[self._name].split(BATCH))

    def values(self, _metric: Metric, answers: Tensor, start: int = 0) -> PerSample:  # noqa: ARG002
        return answers.double().numpy()


class World:
    """A network of some layers with a choice table, and splits, in the words of a `Subject`."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self._setting = setting
        self._seed = seed
        draw = np.random.default_rng(seed)
        self.table = _table(draw)
        self._worst = self.table.loss(tuple(size - 1 for size in self.table.sizes))
        mildest = min(layer.choices[1].loss for layer in self.table.layers)
        # The true loss is a power of the predicted one, from the least to the most.
        spread = math.log(setting.most / setting.least)
        self._power = spread / math.log(self._worst / mildest)
        self._hard = {
            name: torch.randn(count, generator=self._generator(name))
            for name, count in (("search", setting.search), ("confirmation", setting.confirmation))
        }
        self._dense = {
            name: self._dense_values(name, len(values)) for name, values in self._hard.items()
        }
        self.search, self.confirmation = (Split(name, dense) for name, dense in self._dense.items())
        self.opponent = Answerer(self._dense, 1.0)
        self.factors = SimpleNamespace(collect=lambda _: None, known=lambda *_: True)

    def narrowed(self, widths: Mapping[str, int]) -> "World":  # noqa: ARG002, there are none
        """The same at other widths."""
        return self

    def true_loss(self, point: Point) -> float:
        """What a candidate really loses, in the unit of `Setting.allowed`."""
        if point == self.table.dense_point:
            return 0.0
        surprise = math.exp(SURPRISE * self._draw(point).standard_normal())
        share = (self.table.loss(point) / self._worst) ** self._power * self._setting.most
        return self._setting.allowed * min(max(share * surprise, self._setting.least), 20.0)

    def point(self, plan: Plan) -> Point:
        """The point that a plan stands for."""
        return tuple(
            [row.choice for row in layer.choices].index(plan.choices.get(layer.name))
            for layer in self.table.layers
        )

    def recovered(self, _plan: Plan) -> None:
        """Nothing is trained here."""

    def assemble(self, plan: Plan, _report: object = None, **_limits: object) -> Answerer:
        """The candidate of a plan, the same each time."""
        point = self.point(plan)
        loss = self.true_loss(point)
        seed = int(self._draw(point).integers(2**62))
        values = {
            name: self._values(loss, name, torch.Generator().manual_seed(seed + len(name)))
            for name in self._hard
        }
        return Answerer(values, self.table.latency_ms(point) / self.table.dense_latency_ms)

    def race(self, candidates: Mapping[str, Answerer], **_: Any) -> Race:
        """A race that takes no time: each network takes its share, give or take 1 %."""
        shares = {name: network.time_share for name, network in candidates.items()}
        all_shares = {"dense": 1.0, **shares}
        return Race(
            timings={name: Timing(10 * s, 9 * s, 11 * s, 7) for name, s in all_shares.items()},
            ratios={name: Ratio(s, 0.99 * s, 1.01 * s) for name, s in shares.items()},
            layouts=dict.fromkeys(all_shares, "contiguous"),
            runtime="none",
            rounds=7,
        )

    def _values(self, loss: float, name: str, generator: torch.Generator) -> Tensor:
        hard, dense = self._hard[name], self._dense[name]
        own = torch.randn(len(hard), generator=generator)
        if self._setting.metric == "mse":
            logs = TAIL * (math.sqrt(SHARED) * hard + math.sqrt(1 - SHARED) * own)
            return loss * torch.exp(logs - TAIL**2 / 2)  # of this mean
        rank = ndtr(math.sqrt(SHARED) * hard + math.sqrt(1 - SHARED) * own)  # uniform
        right = self._setting.accuracy
        worse = rank < (1 + RECOVERED) * loss / right
        better = rank < RECOVERED * loss / (1 - right)
        return torch.where(dense > 0, (~worse).float(), better.float())

    def _dense_values(self, name: str, count: int) -> Tensor:
        if self._setting.metric == "mse":
            return torch.zeros(count)
        drawn = torch.rand(count, generator=self._generator(f"dense {name}"))
        return (drawn < self._setting.accuracy).float()

    def _generator(self, name: str) -> torch.Generator:
        return torch.Generator().manual_seed(self._seed * 1000 + sum(map(ord, name)))

    def _draw(self, point: Point) -> np.random.Generator:
        return np.random.default_rng([self._seed, *point])


def _table(draw: np.random.Generator) -> ChoiceTable:
    layers = []
    for number in range(int(draw.integers(2, 7))):
        shares = np.sort(draw.uniform(0.1, 0.9, CHOICES))[::-1]
        feel = math.exp(draw.standard_normal())
        rows = [ChoiceRow(choice=None, loss=0.0, latency_ms=1.0, parameters=100, macs=100)]
        rows += [
            ChoiceRow(
                choice=Choice("svd", (CHOICES - i,)),
                loss=1e-3 * feel * (1 / share - 1) ** 2,
                latency_ms=float(share),
                parameters=int(100 * share),
                macs=int(100 * share),
            )
            for i, share in enumerate(shares)
        ]
        layers.append(LayerRow(name=f"layer{number}", choices=tuple(rows)))
    return ChoiceTable(
        layers=tuple(layers),
        dense_latency_ms=len(layers) + 0.5,
        dense_parameters=100 * len(layers),
        dense_macs=100 * len(layers),
        kept_dense={},
    )
