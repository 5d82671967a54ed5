"""The network that a job is about: on its device, with its data, and all that is found once."""

import copy
import math
from collections import defaultdict
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from compress.calibration import LayerMoments, moments, trace
from compress.equivalent import dense_weight, relative_error
from compress.errors import CompressError
from compress.kernels import kernel_of, kernel_size
from compress.layers import inspect
from compress.load import replace_
from compress.memory import moment_bytes, peak_bytes
from compress.methods.method import StagedFactors
from compress.methods.registry import method_named
from compress.plan import Choice, Plan
from compress.reference import Reference
from compress.repair import repair_
from compress.shape import LayerShape
from compress.surgery import factorized
from search.config import UNLABELLED, SearchConfig
from search.data import Arrays
from search.errors import SearchError
from search.measurement import Layout, Timing, race
from search.samples import Samples, check_answers
from search.splits import make_splits

CALIBRATION_BATCH = 64
PATCHES_PER_DIMENSION = 8
MOMENT_BATCHES = 2  # at least, of calibration images
REPAIR_BATCHES = 4  # of calibration images: repair is part of every evaluation


class DeviceError(SearchError, RuntimeError):
    """The device that was asked for is not there."""


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
    """Multiply-adds of one input in convolutions and linear layers."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Subject:
    """A dense network with its splits, traces, moments and decompositions.

    Moments and decompositions are found when they are first needed, and once.
    """

    def __init__(
        self,
        *,
        dense: nn.Module,
        architecture: dict[str, Any],
        config: SearchConfig,
        device: torch.device,
        search: Samples,
        confirmation: Samples,
        calibration: list[Tensor],
        example: Tensor,
    ) -> None:
        self.dense = dense
        self.architecture = architecture
        self.config = config
        self.device = device
        self.search = search
        self.confirmation = confirmation
        self.calibration = calibration
        self.example = example  # (batch, C, H, W), the input that is timed
        self.layers = inspect(dense)
        self.traces = trace(dense, example)
        self.parameters = sum(weight.numel() for weight in dense.parameters())
        self.baseline = self._measure()
        self._moments: dict[str, LayerMoments] = {}
        self._decompositions: dict[tuple[str, str, bool], StagedFactors] = {}
        self._factors: dict[tuple[str, Choice], dict[str, Tensor]] = {}
        self._reference: Reference | None = None
        self._last: tuple[Plan, nn.Module] | None = None

    @classmethod
    def prepare(
        cls,
        model: nn.Module,
        arrays: Arrays,
        config: SearchConfig,
        architecture: dict[str, Any],
    ) -> Self:
        """Put a copy of the network on the device, split the data and measure the baseline.

        Args:
            model: the trained network; left as it is.
            arrays: what it is measured on.
            config: the whole order.
            architecture: what `compress.load.build_dense` rebuilds the network from.

        Raises:
            DataError: the data do not fit the network or the promise.
            DeviceError: cuda was asked for and there is none.
        """
        metric = config.budget.metric
        splits = make_splits(arrays, needs_labels=metric not in UNLABELLED)
        device = find_device(config.objective.device)
        dense = copy.deepcopy(model).to(device).eval().requires_grad_(False)
        search, confirmation = (
            Samples(
                arrays,
                arrays.images[part],
                None if arrays.labels is None else arrays.labels[part],
                dense,
                device,
            )
            for part in (splits.search, splits.confirmation)
        )
        check_answers(metric, search.dense_answers, arrays.labels)
        source = arrays.train_images if splits.calibration_is_training else arrays.images
        assert source is not None
        images = arrays.inputs(source[splits.calibration].to(device))
        batch = config.objective.batch
        return cls(
            dense=dense,
            architecture=architecture,
            config=config,
            device=device,
            search=search,
            confirmation=confirmation,
            calibration=list(torch.split(images, CALIBRATION_BATCH)),
            example=images[torch.arange(batch, device=device) % len(images)],
        )

    def factors(self, name: str, choice: Choice) -> dict[str, Tensor]:
        """The weights of a layer's stages, in the norm of its inputs where they were collected.

        Raises:
            CompressError: the ranks do not fit, or the decomposition does not converge.
        """
        if (name, choice) not in self._factors:
            weight = self.dense.get_submodule(name).get_parameter("weight")
            try:
                found = self._decomposition(name, choice).factors(choice.ranks)
            except LinAlgError as error:
                raise CompressError(f"{choice} of {name!r} does not converge: {error}") from error
            self._factors[name, choice] = {stage: f.to(weight.dtype) for stage, f in found.items()}
        return self._factors[name, choice]

    def error(self, name: str, choice: Choice) -> float:
        """Squared relative output error of a layer's factors, on its inputs where collected.

        Raises:
            CompressError: the ranks do not fit, or the decomposition does not converge.
        """
        metric = self.metric(name)
        try:
            decomposition = self._decomposition(name, choice)
            if decomposition.metric is metric:
                return decomposition.error(choice.ranks)
            stages = decomposition.method.stages(decomposition.shape, choice.ranks)
            found = dense_weight(decomposition.shape, stages, decomposition.factors(choice.ranks))
            return relative_error(
                kernel_of(decomposition.shape, decomposition.weight), found, metric
            )
        except LinAlgError as error:
            raise CompressError(f"{choice} of {name!r} does not converge: {error}") from error

    def _decomposition(self, name: str, choice: Choice) -> StagedFactors:
        """In the norm of the inputs where that fits into memory, else in the plain norm.

        Raises:
            CompressError: the plain norm does not fit either.
        """
        shape, metric = self.shape(name), self.metric(name)
        limit = self.config.limits.max_memory_bytes

        def needed(*, data_aware: bool) -> int:
            return peak_bytes(shape, choice.method, choice.ranks, data_aware=data_aware)

        if metric is not None and needed(data_aware=True) > limit:
            metric = None
        if metric is None and (needs := needed(data_aware=False)) > limit:
            raise CompressError(
                f"{choice} of {name!r} needs {needs:,} bytes, limits.max_memory_bytes is {limit:,}"
            )
        key = name, choice.method, metric is not None
        if key not in self._decompositions:
            weight = self.dense.get_submodule(name).get_parameter("weight")
            self._decompositions[key] = method_named(choice.method).decompose(
                shape, weight.double(), metric
            )
        return self._decompositions[key]

    def settle(self, name: str, choices: Collection[Choice]) -> None:
        """Keep a layer's factors for these choices, and let go of what they were found with."""
        self._moments.pop(name, None)
        for known in [key for key in self._decompositions if key[0] == name]:
            del self._decompositions[known]
        for key in [key for key in self._factors if key[0] == name and key[1] not in choices]:
            del self._factors[key]

    def shape(self, name: str) -> LayerShape:
        """The shape of a layer that can be factorised."""
        shape = next(report.shape for report in self.layers if report.name == name)
        assert shape is not None
        return shape

    def metric(self, name: str) -> Tensor | None:
        """The second moment of a layer's input patches; None: the plain norm."""
        return self._moments[name].second if name in self._moments else None

    def has_factors(self, name: str, choice: Choice) -> bool:
        """Whether the factors of this choice are known, so that nothing need be decomposed."""
        return (name, choice) in self._factors

    def collect(self, names: Collection[str]) -> None:
        """Run calibration images through the dense network, for the inputs of these layers.

        As many images as give eight patches for each dimension D of a patch, 128 at least: a layer
        on a large image has seen enough of it long before the last one.
        """
        groups: dict[int, list[str]] = defaultdict(list)
        for name in names:
            shape, dimension = self.shape(name), _dimension(self.shape(name))
            fits = moment_bytes(shape) <= self.config.limits.max_memory_bytes
            if name not in self._moments and fits:
                patches = math.prod(shape.output_size(self.traces[name].input_size))
                images = PATCHES_PER_DIMENSION * dimension / (patches * self.traces[name].calls)
                batches = max(math.ceil(images / CALIBRATION_BATCH), MOMENT_BATCHES)
                groups[min(batches, len(self.calibration))].append(name)
        for batches, group in groups.items():
            self._moments |= moments(self.dense, self.calibration[:batches], group)

    def assemble(self, plan: Plan) -> nn.Module:
        """The dense network with the plan's layers factorised, then repaired; in eval mode.

        The last one is kept, since it is asked for again when it is to be stored: leave it as it
        is, or copy it.

        Raises:
            CompressError: the plan does not fit the network, or a decomposition does not converge.
        """
        if self._last is None or self._last[0] != plan:
            self._last = plan, self._assembled(plan)
        return self._last[1]

    def _assembled(self, plan: Plan) -> nn.Module:
        self.collect([name for name, choice in plan if not self.has_factors(name, choice)])
        model = copy.deepcopy(self.dense)
        replace_(
            model,
            {
                name: factorized(
                    self.dense.get_submodule(name),
                    choice,
                    decomposition=_Known(self.factors(name, choice)),
                )
                for name, choice in plan
            },
        )
        repair_(model, plan, self._reference_for(plan))
        return model

    def _reference_for(self, plan: Plan) -> Reference:
        """What repair is held against: asked anew only where a plan has a layer not asked about."""
        asked = self._reference.samples.keys() if self._reference is not None else set[str]()
        names = {name for name, _ in plan if name in self.traces}
        if self._reference is None or not names <= asked:
            batches = self.calibration[:REPAIR_BATCHES]
            self._reference = Reference.of(self.dense, names | asked, batches)
        return self._reference

    def _measure(self) -> Baseline:
        budget, objective = self.config.budget, self.config.objective
        values = self.search.dense_values(budget.metric)
        timed = race({"dense": self.dense}, self.example, threads=objective.threads)
        return Baseline(
            metric=budget.metric,
            value=budget.shown(float(values.mean())),
            samples=len(values),
            latency_ms=timed.timings["dense"],
            layout=timed.layouts["dense"],
            parameters=self.parameters,
            macs=sum(
                report.shape.macs(self.traces[report.name].input_size)
                * self.traces[report.name].calls
                for report in self.layers
                if report.shape is not None and report.name in self.traces
            ),
        )


class _Known:
    """Factors found before, in the form of a decomposition."""

    def __init__(self, factors: dict[str, Tensor]) -> None:
        self._factors = factors

    def factors(self, ranks: tuple[int, ...]) -> dict[str, Tensor]:  # noqa: ARG002, of one choice
        return self._factors


def find_device(name: str) -> torch.device:
    """The device by its name in the objective; auto is cuda where there is one.

    Raises:
        DeviceError: cuda was asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device cuda came, this machine has no usable GPU: choose cpu or auto")
    return torch.device(name)


def _dimension(shape: LayerShape) -> int:
    """D of a layer's input patches, of one group where there are groups."""
    return math.prod(kernel_size(shape)[1:])
