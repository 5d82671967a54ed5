"""The choice table: all that a strategy knows of a network."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from compress.plan import Choice, Plan
from compress.recurrent.modes import Modes
from search.config import LATENCY, Weights
from search.strategy import Point


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceRow:
    """One way to hold a layer. The first row of a layer is dense: choice None, loss 0."""

    choice: Choice | None
    loss: float
    """Predicted on the calibration data: the relative squared output error, in [0, 1], or by
    importance "loss" the rise of the network's loss, in nats or squared units."""
    latency_ms: float
    """Median of this layer alone, at the objective's batch, device and threads."""
    parameters: int
    macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """A layer with its choices, dense first, then by falling parameters."""

    name: str
    choices: tuple[ChoiceRow, ...]
    vbmf: int | None = None
    """Index of the choice nearest to the analytic VBMF rank; None if none came out."""

    @property
    def dense(self) -> ChoiceRow:
        return self.choices[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The network before any layer is factorised, where it was narrowed."""

    widths: dict[str, int] = field(default_factory=dict)
    """Layer -> output channels, of those that lost some."""
    loss: float
    """That narrowing costs, in the unit of the choices' losses."""
    latency_ms: float
    parameters: int
    macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceTable:
    """Rows of the layers that have at least one choice besides dense, in forward order."""

    layers: tuple[LayerRow, ...]
    dense_latency_ms: float
    """Median of the whole dense network."""
    dense_parameters: int
    dense_macs: int
    kept_dense: dict[str, str]
    """Layer -> why it has no choice: unsupported, or nothing was cheaper."""
    weights: Weights = LATENCY
    """What is minimised."""
    narrowed: Start | None = None
    """What the layers are those of, if it is not the dense network."""

    @property
    def start(self) -> Start:
        """What the point of all layers dense stands for."""
        return self.narrowed or Start(
            loss=0.0,
            latency_ms=self.dense_latency_ms,
            parameters=self.dense_parameters,
            macs=self.dense_macs,
        )

    @property
    def sizes(self) -> Point:
        """Number of choices of each layer, dense included."""
        return tuple(len(layer.choices) for layer in self.layers)

    @property
    def dense_point(self) -> Point:
        return (0,) * len(self.layers)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to choose."""
        return not self.layers

    def rows(self, point: Sequence[int]) -> list[ChoiceRow]:
        return [layer.choices[i] for layer, i in zip(self.layers, point, strict=True)]

    def plan(self, point: Sequence[int]) -> Plan:
        """The plan that a point stands for."""
        named = zip(self.layers, self.rows(point), strict=True)
        choices = {layer.name: row.choice for layer, row in named if row.choice is not None}
        return Plan(choices, self.start.widths)

    def of(self, point: Point) -> tuple["ChoiceTable", Point]:
        """The table of layers that a point chooses from, and the choices."""
        return self, point

    def width_of(self, point: Point) -> int:  # noqa: ARG002, as of a table of several
        """The number of the widths that a point has: there is one alone."""
        return 0

    def elsewhere(self, point: Point, loss: float) -> Iterator[Point]:  # noqa: ARG002
        """Of every other width the cheapest point within a predicted loss: there is none."""
        return iter(())

    def swaps(self, point: Point) -> Iterator[tuple[Point, float, float]]:
        """Points with another choice in one layer, what each saves of the cost, and loses more."""
        for i, held in enumerate(self.rows(point)):
            cost = self.row_cost(held)
            for j, row in enumerate(self.layers[i].choices):
                swapped = (*point[:i], j, *point[i + 1 :])
                yield swapped, cost - self.row_cost(row), row.loss - held.loss

    def latency_ms(self, point: Sequence[int]) -> float:
        """Predicted latency of the whole network: the start's, less what each layer saves."""
        saved = sum(
            layer.dense.latency_ms - row.latency_ms
            for layer, row in zip(self.layers, self.rows(point), strict=True)
        )
        return self.start.latency_ms - saved

    def row_cost(self, row: ChoiceRow | Start) -> float:
        """What a row, or a start, costs of the dense network's cost, which is 1."""
        return self.weights.cost(
            row.latency_ms / self.dense_latency_ms,
            row.macs / self.dense_macs,
            row.parameters / self.dense_parameters,
        )

    def cost(self, point: Sequence[int]) -> float:
        """Predicted cost of the whole network: that of the start, less what each layer saves."""
        saved = sum(
            self.row_cost(layer.dense) - self.row_cost(row)
            for layer, row in zip(self.layers, self.rows(point), strict=True)
        )
        return self.row_cost(self.start) - saved if self.narrowed else 1 - saved

    def loss(self, point: Sequence[int]) -> float:
        """Predicted loss: the sum of the layers' losses, and what narrowing costs."""
        return self.start.loss + sum(row.loss for row in self.rows(point))

    def parameters(self, point: Sequence[int]) -> int:
        saved = sum(
            layer.dense.parameters - row.parameters
            for layer, row in zip(self.layers, self.rows(point), strict=True)
        )
        return self.start.parameters - saved

    def macs(self, point: Sequence[int]) -> int:
        saved = sum(
            layer.dense.macs - row.macs
            for layer, row in zip(self.layers, self.rows(point), strict=True)
        )
        return self.start.macs - saved

    def parameter_share(self, point: Sequence[int]) -> float:
        return self.parameters(point) / self.dense_parameters

    def mac_share(self, point: Sequence[int]) -> float:
        return self.macs(point) / self.dense_macs

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "ChoiceTable":
        """Read what `to_json` wrote."""
        return cls.from_document(json.loads(text))

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "ChoiceTable":
        """Read the JSON value that `to_json` writes; it is used up."""
        document["layers"] = tuple(_layer(layer) for layer in document["layers"])
        document["weights"] = Weights(**document.get("weights", asdict(LATENCY)))
        narrowed = document.get("narrowed")
        document["narrowed"] = None if narrowed is None else Start(**narrowed)
        return cls(**document)


def _layer(document: dict[str, object]) -> LayerRow:
    rows = document.pop("choices")
    assert isinstance(rows, list)
    return LayerRow(choices=tuple(_row(row) for row in rows), **document)  # type: ignore[arg-type]


def _row(document: dict[str, object]) -> ChoiceRow:
    choice = document.pop("choice")
    if choice is not None:
        assert isinstance(choice, dict)
        modes = choice.get("modes") and Modes.from_json(choice["modes"])
        choice = Choice(choice["method"], tuple(choice["ranks"]), modes)
    return ChoiceRow(choice=choice, **document)  # type: ignore[arg-type]
