"""What is made small, and the circumstances it is measured in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from annotated_types import Ge, Le

from search.config.errors import ConfigError

Minimise = Literal["latency", "macs", "parameters", "weighted"]
Runtime = Literal["eager", "compile", "cuda_graph", "onnxruntime", "openvino"]
Device = Literal["cpu", "cuda"]
GRAPH_RUNTIMES: tuple[Runtime, ...] = ("onnxruntime", "openvino")  # networks as ONNX graphs
ONLY_ON: dict[Runtime, Device] = {"cuda_graph": "cuda", "onnxruntime": "cpu", "openvino": "cpu"}
"""Where the runtimes are measured that know one kind of device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What each share of the dense network counts for in the one number that is minimised."""

    latency: Annotated[float, Ge(0)] = 0.0
    macs: Annotated[float, Ge(0)] = 0.0
    parameters: Annotated[float, Ge(0)] = 0.0

    def __post_init__(self) -> None:
        weights = (self.latency, self.macs, self.parameters)
        if not all(0 <= weight < math.inf for weight in weights) or not 0 < sum(weights) < math.inf:
            raise ConfigError(
                f"weights {weights} of latency, macs and parameters came, "
                "numbers from 0 on were wanted, of which one at least is above 0"
            )

    @classmethod
    def parsed(cls, texts: Sequence[str]) -> Self:
        """Weights as they are written on a command line: latency=0.7, macs=0.3.

        Raises:
            ConfigError: one is no name with a number, or a name comes twice.
        """
        found: dict[str, float] = {}
        for text in texts:
            name, _, number = text.partition("=")
            try:
                if name in found or name not in cls.__slots__:
                    raise ValueError(name)
                found[name] = float(number)
            except ValueError:
                raise ConfigError(
                    f"weight {text!r} came, a number of latency, macs or parameters was wanted, "
                    "each once: latency=0.7"
                ) from None
        return cls(**found)

    def cost(self, latency: float, macs: float, parameters: float) -> float:
        """The weighted mean of three shares of the dense network, whose own cost is thus 1."""
        weighed = self.latency * latency + self.macs * macs + self.parameters * parameters
        return weighed / (self.latency + self.macs + self.parameters)


LATENCY = Weights(latency=1.0)
# What is minimised by a single name; "weighted" comes with weights of its own.
WEIGHTS: dict[Minimise, Weights] = {
    "latency": LATENCY,
    "macs": Weights(macs=1.0),
    "parameters": Weights(parameters=1.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What is made small, and the circumstances it is measured in.

    Whatever is minimised, latency is measured: fewer MACs may be slower.
    """

    minimise: Minimise = "latency"
    weights: Weights | None = None
    """Of `weighted`, and of nothing else."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    runtime: Runtime = "eager"
    """What the speed-up is to hold for: torch as it is, torch.compile, or another library."""
    batch: Annotated[int, Ge(1), Le(4096)] = 1
    threads: Annotated[int, Ge(1), Le(64)] = 1
    dtype: Literal["float32"] = "float32"
    fold_norms: bool = False
    """Whether batch norms go into the layers before them, in the dense network that is timed too.
    Faster by a few percent or more; the result has no norms to be trained with."""

    def __post_init__(self) -> None:
        if self.minimise == "weighted" and self.weights is None:
            raise ConfigError(
                "minimise weighted came without weights: say what latency, macs and parameters "
                "count for, 0.7 of latency and 0.3 of macs say"
            )
        if self.minimise != "weighted" and self.weights is not None:
            raise ConfigError(
                f"weights came with minimise {self.minimise}, which has none: "
                "choose minimise weighted, or leave the weights out"
            )
        only = ONLY_ON.get(self.runtime, self.device)
        if self.device not in ("auto", only):
            raise ConfigError(
                f"runtime {self.runtime} came with device {self.device}; it is measured on {only} "
                f"alone: choose device {only}, or runtime eager or compile"
            )

    @property
    def minimised(self) -> Weights:
        """What latency, MACs and parameters count for."""
        return self.weights or WEIGHTS[self.minimise]
