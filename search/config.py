"""What a job asks for: frozen dataclasses, without torch.

Each class checks itself, so the same sentence answers a wrong REST body and a wrong call from
Python; `service.schemas` reads these very classes, nothing is declared twice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, Self

from annotated_types import Ge, Gt, Le

from compress.catalog import ALL_METHODS, DEFAULT_METHODS
from compress.errors import RankError
from compress.recurrent.modes import Modes

Unit = Literal["points", "relative_percent"]
Metric = Literal["top1", "top5", "loss", "agreement", "mse"]
Minimise = Literal["latency", "macs", "parameters", "weighted"]
Runtime = Literal["eager", "compile", "onnxruntime", "openvino"]
Method = Literal[
    "svd",
    "spatial_svd",
    "tucker2",
    "cp3",
    "cp4",
    "tensor_train",
    "block_term",
    "kronecker",
    "semi_tensor",
    "hierarchical_tucker",
    "kcp",
    "cp",
    "tucker",
    "tensor_train_matrix",
    "tensor_ring",
]

# Metrics of which a share of the samples is right; the others are averages of a real number.
COUNTED: tuple[Metric, ...] = ("top1", "top5", "agreement")
GRAPH_RUNTIMES: tuple[Runtime, ...] = ("onnxruntime", "openvino")  # networks as ONNX graphs
UNLABELLED: tuple[Metric, ...] = ("agreement", "mse")

# What an error of a layer is weighed by. "output": all its outputs alike, relative to their size.
# "loss": how much the network's loss feels each of them, to second order; found by one pass
# backward, without labels.
Importance = Literal["output", "loss"]

# What a candidate learns from after it was factorised and repaired: nothing, the dense network's
# answers, or those and the labels.
RecoveryMethod = Literal["none", "distil", "finetune"]

MOST_SHIFT: Final = 64  # pixels
MOST_MODES: Final = 12  # of a side of a recurrent weight


class ConfigError(ValueError):
    """A setting of a job that cannot be meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The loss that the user allows.

    `points` are percentage points of a counted metric (top1, top5, agreement) and plain
    differences of the others; `relative_percent` is a share of the dense network's own value.
    With `confidence` the promise holds for the one-sided upper bound of the paired loss, with
    None for the point estimate.
    """

    max_loss: float
    unit: Unit
    metric: Metric = "top1"
    confidence: Annotated[float, Gt(0.5), Le(0.999)] | None = 0.95

    def __post_init__(self) -> None:
        if not math.isfinite(self.max_loss) or not 0 <= self.max_loss <= 100:
            raise ConfigError(
                f"max_loss {self.max_loss} came, a number from 0 to 100 was wanted: "
                f"the {self.metric} you can afford to lose, in {self.unit}"
            )
        if self.metric in UNLABELLED and self.unit == "relative_percent":
            raise ConfigError(
                f"{self.metric} compares with the dense network itself, whose value is fixed: "
                "give the budget in points"
            )

    def allowed(self, dense: float) -> float:
        """The budget as a difference of the metric itself, given the dense network's value.

        Counted metrics are shares in [0, 1] here: half a point is 0.005.
        """
        if self.unit == "relative_percent":
            return abs(dense) * self.max_loss / 100
        return self.max_loss / 100 if self.metric in COUNTED else self.max_loss

    def shown(self, loss: float) -> float:
        """A difference of the metric in the numbers a person reads: points where counted."""
        return 100 * loss if self.metric in COUNTED else loss


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
        if self.device == "cuda" and self.runtime in GRAPH_RUNTIMES:
            raise ConfigError(
                f"runtime {self.runtime} came with device cuda; it is measured on the CPU alone: "
                "choose device cpu, or runtime eager or compile"
            )

    @property
    def minimised(self) -> Weights:
        """What latency, MACs and parameters count for."""
        return self.weights or WEIGHTS[self.minimise]


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimationConfig:
    """One number stands for the whole plan.

    by="loss": bisect the total predicted loss, the fastest plan for each by knapsack; ends with
    `max_evaluations`.
    by="parameters": Song et al. 2021, algorithm 1: bisect the parameter count, then group search,
    refused where the group search would take more than `max_group_points` evaluations.
    """

    strategy: Literal["estimation"] = "estimation"
    by: Literal["loss", "parameters"] = "loss"
    max_evaluations: Annotated[int, Ge(1)] = 10
    max_group_points: Annotated[int, Ge(1)] = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneticConfig:
    """NSGA-II on one gene a layer, seeded with the estimation front."""

    strategy: Literal["genetic"] = "genetic"
    population: Annotated[int, Ge(4), Le(512)] = 12
    generations: Annotated[int, Ge(1), Le(1000)] = 6
    crossover_rate: Annotated[float, Ge(0), Le(1)] = 0.7
    mutation_rate: Annotated[float, Ge(0), Le(1)] = 0.25
    screening: Annotated[int, Ge(1), Le(1000)] = 20
    seed: Annotated[int, Ge(0)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformConfig:
    """The same parameter share in every layer, bisected: the baseline that users know."""

    strategy: Literal["uniform"] = "uniform"
    max_evaluations: Annotated[int, Ge(1)] = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class VbmfConfig:
    """Analytic ranks from empirical variational Bayes: one answer, no knob for the budget."""

    strategy: Literal["vbmf"] = "vbmf"


StrategyConfig = EstimationConfig | GeneticConfig | UniformConfig | VbmfConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a job may spend. Time in the queue does not count."""

    max_seconds: Annotated[float, Gt(0)] = 7200.0
    max_evaluations: Annotated[int, Ge(1)] = 400
    max_memory_bytes: Annotated[int, Ge(2**24)] = 4 * 2**30
    """Of one decomposition. Above it a layer is decomposed in a coarser norm, or not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How pictures are varied each time a candidate learns from them; by default not at all."""

    flip: bool = False
    """Half of them mirrored left to right: of digits and letters that changes the class."""
    shift: Annotated[int, Ge(0), Le(MOST_SHIFT)] = 0
    """Pixels, up to which each is moved up or down and to a side. One that is cropped shows what
    the crop leaves out; beyond its edges they are repeated."""

    def __bool__(self) -> bool:
        """Whether anything is varied."""
        return self.flip or self.shift > 0

    @classmethod
    def parsed(cls, text: str) -> Self:
        """What a text declares, as it stands on a command line: flip,shift=4, or nothing.

        Raises:
            ConfigError: it cannot be read.
        """
        found: dict[str, Any] = {}
        for word in text.split(",") if text else []:
            match word.split("="):
                case ["flip"]:
                    found["flip"] = True
                case ["shift", pixels] if pixels.isdecimal() and int(pixels) <= MOST_SHIFT:
                    found["shift"] = int(pixels)
                case _:
                    raise ConfigError(
                        f"augment {text!r} came, flip, shift=PIXELS or both with a comma between "
                        f"were wanted, {MOST_SHIFT} pixels at most"
                    )
        return cls(**found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """How each candidate is trained before its loss is measured, on training samples alone.

    Training ends with `max_seconds` or `max_epochs`, whichever comes first. Where the seconds end
    it, two jobs of one seed differ.
    """

    method: RecoveryMethod = "none"
    max_seconds: Annotated[float, Gt(0), Le(86400)] = 30.0
    """Of a candidate."""
    max_epochs: Annotated[int, Ge(1), Le(1000)] = 20
    augment: Augmentation = field(default_factory=Augmentation)
    """The dense network then answers each varied picture anew, which takes a part of the time."""
    seed: Annotated[int, Ge(0)] = 0

    def __post_init__(self) -> None:
        if self.augment and self.method == "none":
            raise ConfigError(
                "augment came with recovery none, which trains nothing: choose recovery distil or "
                "finetune"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightModes:
    """How the two sides of a recurrent layer's weight are folded for the methods that fold."""

    weight: str
    """MODULE.WEIGHT, as `lstm.weight_hh_l0`."""
    inputs: tuple[int, ...]
    """Their product is the number of inputs; the last varies fastest."""
    outputs: tuple[int, ...]
    """Likewise of outputs, those of all gates."""

    def __post_init__(self) -> None:
        if max(len(self.inputs), len(self.outputs)) > MOST_MODES:
            raise ConfigError(
                f"{len(self.inputs)} modes of the inputs and {len(self.outputs)} of the outputs of "
                f"{self.weight} came, {MOST_MODES} at most were wanted"
            )
        try:
            Modes(self.inputs, self.outputs)
        except RankError as error:
            raise ConfigError(f"of {self.weight}: {error}") from error

    @property
    def modes(self) -> Modes:
        """As the decompositions take them."""
        return Modes(self.inputs, self.outputs)

    @classmethod
    def parsed(cls, text: str) -> Self:
        """Modes as they are written on a command line: lstm.weight_hh_l0=16x32:32x64.

        Raises:
            ConfigError: it cannot be read.
        """
        weight, _, sides = text.partition("=")
        try:
            inputs, outputs = (tuple(map(int, side.split("x"))) for side in sides.split(":"))
        except ValueError:
            raise ConfigError(
                f"modes {text!r} came, WEIGHT=INPUTS:OUTPUTS was wanted: "
                "lstm.weight_hh_l0=16x32:32x64"
            ) from None
        return cls(weight=weight, inputs=inputs, outputs=outputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConfig:
    """A whole order: the promise, the circumstances, the strategy and what it may cost."""

    budget: Budget
    objective: Objective = field(default_factory=Objective)
    methods: tuple[Method, ...] = DEFAULT_METHODS
    exclude: tuple[str, ...] = ()
    modes: tuple[WeightModes, ...] = ()
    """Of weights of recurrent layers; of those that are not here, the two nearest to a root."""
    importance: Importance = "loss"
    widths: bool = False
    """Whether channels may be taken out of groups of them too: what no rank makes less of, the
    activations between layers and layers of few inputs, gets faster with them."""
    search: StrategyConfig = field(default_factory=EstimationConfig)
    recovery: Recovery = field(default_factory=Recovery)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.recovery.method == "finetune" and self.budget.metric == "mse":
            raise ConfigError(
                "recovery finetune came with the metric mse, whose answers are no classes to have "
                "labels of: choose recovery distil"
            )
        if self.widths and (self.importance != "loss" or not _takes_widths(self.search)):
            raise ConfigError(
                f"widths came with strategy {self.search.strategy} and importance "
                f"{self.importance}: they are searched by strategy estimation (by loss) alone, "
                "with importance loss"
            )
        if not self.methods or len(set(self.methods)) != len(self.methods):
            raise ConfigError(
                f"methods {self.methods} came, one or more of {ALL_METHODS} were wanted"
            )
        if len({each.weight for each in self.modes}) != len(self.modes):
            raise ConfigError(f"modes {self.modes} came, those of each weight once were wanted")

    def modes_of(self, weight: str) -> Modes | None:
        """Those that are ordered for a weight, None for the default."""
        return next((each.modes for each in self.modes if each.weight == weight), None)


def _takes_widths(search: StrategyConfig) -> bool:
    return isinstance(search, EstimationConfig) and search.by == "loss"
