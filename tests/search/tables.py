"""Synthetic choice tables, and truths that a strategy may find out point by point."""

import math
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from compress.plan import Choice
from search.config import Weights
from search.strategy import Candidate, Costs, Point
from search.table import ChoiceRow, ChoiceTable, LayerRow

METHODS = ("svd", "spatial_svd", "tucker2")


def row(
    loss: float,
    latency_ms: float,
    parameters: int,
    ranks: tuple[int, ...] = (16,),
    macs: int | None = None,
) -> ChoiceRow:
    """A factorised choice."""
    return ChoiceRow(
        choice=Choice("svd", ranks),
        loss=loss,
        latency_ms=latency_ms,
        parameters=parameters,
        macs=10 * parameters if macs is None else macs,
    )


def layer(
    name: str, latency_ms: float, parameters: int, *rows: ChoiceRow, vbmf: int | None = None
) -> LayerRow:
    """A layer, dense first."""
    dense = ChoiceRow(
        choice=None, loss=0.0, latency_ms=latency_ms, parameters=parameters, macs=10 * parameters
    )
    return LayerRow(name=name, choices=(dense, *rows), vbmf=vbmf)


def table(*layers: LayerRow, rest_ms: float = 1.0, rest_parameters: int = 10) -> ChoiceTable:
    """A network of these layers and a rest that nothing changes."""
    parameters = sum(each.dense.parameters for each in layers) + rest_parameters
    return ChoiceTable(
        layers=layers,
        dense_latency_ms=sum(each.dense.latency_ms for each in layers) + rest_ms,
        dense_parameters=parameters,
        dense_macs=10 * parameters,
        kept_dense={},
    )


def synthetic(layers: int, choices: int, seed: int = 0) -> ChoiceTable:
    """A table such as an analysis makes: loss falls like a spectrum, latency has an overhead.

    Args:
        layers: number of layers.
        choices: of each, besides dense, before those that another beats are dropped.
        seed: another network.
    """
    rng = np.random.default_rng(seed)
    return table(*(_layer(f"conv{i}", choices, rng) for i in range(layers)))


def opposed(made: ChoiceTable) -> ChoiceTable:
    """The same, but MACs are minimised and whatever has fewer of them is slower."""
    layers = tuple(
        replace(layer, choices=tuple(_slower(row, layer.dense) for row in layer.choices))
        for layer in made.layers
    )
    return replace(made, layers=layers, weights=Weights(macs=1.0))


def _slower(row: ChoiceRow, dense: ChoiceRow) -> ChoiceRow:
    return replace(row, latency_ms=dense.latency_ms * (2 - row.macs / dense.macs))


def _layer(name: str, choices: int, rng: np.random.Generator) -> LayerRow:
    parameters = int(rng.integers(5_000, 500_000))
    latency_ms = float(rng.uniform(0.2, 2.0))
    sensitivity, decay = rng.uniform(0.3, 1.0), rng.uniform(2.0, 8.0)
    overhead = rng.uniform(0.02, 0.25)
    rows: list[ChoiceRow] = []
    for k, share in enumerate(np.linspace(0.85, 0.06, choices)):
        rank = 16 * (choices - k)
        loss = sensitivity * (math.exp(-decay * share) - math.exp(-decay)) * rng.uniform(0.9, 1.1)
        time = latency_ms * (overhead + share * rng.uniform(0.95, 1.05) * (1 - overhead))
        rows.append(
            ChoiceRow(
                choice=Choice(METHODS[k % 3], (rank,) if k % 3 < 2 else (rank, rank)),
                loss=float(loss),
                latency_ms=float(time),
                parameters=int(share * parameters),
                macs=int(share * parameters * 10),
            )
        )
    kept = [r for r in rows if not any(_beats(other, r) for other in rows)]
    made = layer(name, latency_ms, parameters, *kept, vbmf=int(rng.integers(0, len(kept) + 1)))
    return replace(made, vbmf=made.vbmf or None)


def _beats(one: ChoiceRow, other: ChoiceRow) -> bool:
    return one.loss <= other.loss and one.latency_ms <= other.latency_ms and one is not other


def timed(loss: float, violation: float, time_share: float, parameter_share: float = 1.0) -> Costs:
    """Costs of which latency is what is minimised."""
    return Costs(loss, violation, time_share, parameter_share, mac_share=1.0, cost=time_share)


def all_points(of: ChoiceTable) -> list[Point]:
    """Every point of a small table."""
    return list(product(*(range(size) for size in of.sizes)))


@dataclass(frozen=True)
class Additive:
    """The measured loss is a power of the predicted one, the time is the sum of the table."""

    table: ChoiceTable
    allowed: float
    exponent: float = 1.0
    slope: float = 0.1

    def loss(self, point: Point) -> float:
        return self.slope * self.table.loss(point) ** self.exponent

    def time_share(self, point: Point) -> float:
        return self.table.latency_ms(point) / self.table.dense_latency_ms

    def costs(self, point: Point) -> Costs:
        loss, time_share = self.loss(point), self.time_share(point)
        others = self.table.mac_share(point), self.table.parameter_share(point)
        return Costs(
            loss=loss,
            violation=loss - self.allowed,
            time_share=time_share,
            parameter_share=self.table.parameter_share(point),
            mac_share=self.table.mac_share(point),
            cost=self.table.weights.cost(time_share, *others),
        )

    def __call__(self, points: list[Point]) -> list[Candidate]:
        return [Candidate(point, self.costs(point)) for point in points]


@dataclass(frozen=True)
class Entangled(Additive):
    """Layers matter unequally, neighbours make each other worse, and savings are half real."""

    seed: int = 0

    def loss(self, point: Point) -> float:
        losses = np.array([row.loss for row in self.table.rows(point)])
        weights = np.random.default_rng(self.seed).lognormal(0.0, 0.7, len(losses))
        pairs = np.sqrt(losses[:-1] * losses[1:])
        return float(self.slope * ((weights * losses).sum() + pairs.sum()) ** self.exponent)

    def time_share(self, point: Point) -> float:
        rng = np.random.default_rng((self.seed, 1))
        real = rng.uniform(0.5, 1.0, len(point))
        rows = zip(self.table.layers, self.table.rows(point), strict=True)
        saved = np.array([layer.dense.latency_ms - row.latency_ms for layer, row in rows])
        return 1 - float((real * saved).sum()) / self.table.dense_latency_ms
