"""The choice table: all that a strategy knows of a network."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

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

    @property
    def sizes(self) -> Point:
        """Number of choices of each layer, dense included."""
        return tuple(len(layer.choices) for layer in self.layers)

    @property
    def dense_point(self) -> Point:
        return (0,) * len(self.layers)

    def rows(self, point: Sequence[int]) -> list[ChoiceRow]:
        return [layer.choices[i] for layer, i in zip(self.layers, point, strict=True)]

    def plan(self, point: Sequence[int]) -> Plan:
        """The plan that a point stands for."""
        named = zip(self.layers, self.rows(point), strict=True)
        return Plan({layer.name: row.choice for layer, row in named if row.choice is not None})

    def latency_ms(self, point: Sequence[int]) -> float:
        """Predicted latency of the whole network: dense, less what each layer saves."""
        saved = sum(
            layer.dense.latency_ms - row.latency_ms
            for layer, row in zip(self.layers, self.rows(point), strict=True)
        )
        return self.dense_latency_ms - saved

    def row_cost(self, row: ChoiceRow) -> float:
        """What a row costs of the dense network's cost, which is 1."""
        return self.weights.cost(
            row.latency_ms / self.dense_latency_ms,
            row.macs / self.dense_macs,
            row.parameters / self.dense_parameters,
        )

    def cost(self, point: Sequence[int]) -> float:
        """Predicted cost of the whole network: that of dense, less what each layer saves."""
        saved = sum(
            self.row_cost(layer.dense) - self.row_cost(row)
            for layer, row in zip(self.layers, self.rows(point), strict=True)
        )
        return 1 - saved

    def loss(self, point: Sequence[int]) -> float:
        """Predicted loss: the sum of the layers' losses."""
        return sum(row.loss for row in self.rows(point))

    def parameters(self, point: Sequence[int]) -> int:
        saved = sum(
            layer.dense.parameters - row.parameters
            for layer, row in zip(self.layers, self.rows(point), strict=True)
        )
        return self.dense_parameters - saved

    def macs(self, point: Sequence[int]) -> int:
        saved = sum(
            layer.dense.macs - row.macs
            for layer, row in zip(self.layers, self.rows(point), strict=True)
        )
        return self.dense_macs - saved

    def parameter_share(self, point: Sequence[int]) -> float:
        return self.parameters(point) / self.dense_parameters

    def mac_share(self, point: Sequence[int]) -> float:
        return self.macs(point) / self.dense_macs

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "ChoiceTable":
        """Read what `to_json` wrote."""
        document = json.loads(text)
        document["layers"] = tuple(_layer(layer) for layer in document["layers"])
        document["weights"] = Weights(**document.get("weights", asdict(LATENCY)))
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
