"""What every candidate is compared with: the dense network on this device."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from compress.calibration import Trace
from compress.layers import LayerReport
from search.measurement import Timing
from search.runtimes.runtime import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The dense network on this device: what every candidate is compared with."""

    metric: str
    value: float
    """On the search split, in the numbers a person reads: percent where counted."""
    samples: int
    latency_ms: Timing
    layout: Layout
    parameters: int
    macs: int
    """Multiply-adds of one input in convolutions, linear and recurrent layers."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def macs_of(layers: Sequence[LayerReport], traces: Mapping[str, Trace]) -> int:
    """Multiply-adds of one input in the layers of a dense network that have a shape.

    Args:
        layers: from `compress.layers.inspect`.
        traces: how the network, its recurrent layers open, uses them.
    """
    return sum(
        layer.shape.macs(traces[layer.name].input_size) * traces[layer.name].calls
        for layer in layers
        if layer.shape is not None and layer.name in traces
    )
