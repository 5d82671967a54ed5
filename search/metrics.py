"""The metric that each layer of a network is approximated in, from calibration inputs.

What its inputs are and, by importance "loss", how much the network's loss feels of each of its
outputs; in the finest form that fits into memory.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from compress.calibration import Trace, mode_moments, moments
from compress.gradients import Likelihood, gradient_moments
from compress.kernels import kernel_size
from compress.memory import gradient_bytes, mode_bytes, moment_bytes
from compress.metric import Metric, ModeMoments
from compress.shape import LayerShape
from search.config import Importance
from search.config import Metric as BudgetMetric

PATCHES_PER_DIMENSION = 8
MOMENT_BATCHES = 2  # at least, of calibration images
BACKWARD_IMAGES = 16  # at a time: their activations are held until the gradients have come back


def likelihood(metric: BudgetMetric) -> Likelihood:
    """What the answers of a network stand for that is measured by this metric."""
    return "values" if metric == "mse" else "classes"


@dataclass(frozen=True, slots=True, eq=False)
class LayerMetrics:
    """The metric of one layer, and coarser ones for where that takes too much memory."""

    metrics: tuple[Metric | Tensor | None, ...]  # the finest first, the plain one last
    scale: float | None = None
    """Of the squared error in the finest, to be the predicted rise of the loss; None where errors
    are relative to the layer's own outputs."""


PLAIN = LayerMetrics((None,))


class Metrics:
    """The metrics of the layers of one dense network, collected when they are first needed.

    Args:
        dense: the network.
        shapes: of its layers that can be factorised.
        traces: how it uses them.
        calibration: batches of inputs.
        importance: see `search.config.Importance`.
        likelihood: of the network's answers.
        max_memory_bytes: that collecting the moments of a layer may take.
    """

    def __init__(
        self,
        dense: nn.Module,
        shapes: Mapping[str, LayerShape],
        traces: Mapping[str, Trace],
        calibration: Sequence[Tensor],
        *,
        importance: Importance,
        likelihood: Likelihood,
        max_memory_bytes: int,
    ) -> None:
        self._dense = dense
        self._shapes = shapes
        self._traces = traces
        self._calibration = calibration
        self._importance = importance
        self._likelihood: Likelihood = likelihood
        self._limit = max_memory_bytes
        self._found: dict[str, LayerMetrics] = {}

    def of(self, name: str) -> LayerMetrics:
        """That of a layer; the plain one where nothing was collected."""
        return self._found.get(name, PLAIN)

    def let_go(self, name: str) -> None:
        """Forget what was collected of a layer."""
        self._found.pop(name, None)

    def collect(self, names: Collection[str]) -> None:
        """Run calibration images through the dense network, for those layers without a metric.

        As many images as give eight patches for each dimension D of a patch, 128 at least: a layer
        on a large image has seen enough of it long before the last one.
        """
        groups: dict[int, list[str]] = defaultdict(list)
        for name in names:
            if name not in self._found:
                groups[self._batches(name)].append(name)
        for count, group in groups.items():
            batches = self._calibration[:count]
            inputs = self._inputs(batches, group)
            outputs = self._outputs(batches, group) if self._importance == "loss" else {}
            for name in group:
                self._found[name] = _layer_metrics(
                    self._shapes[name], inputs.get(name), outputs.get(name)
                )

    def _batches(self, name: str) -> int:
        shape, trace = self._shapes[name], self._traces[name]
        _, *inputs = kernel_size(shape)
        patches = math.prod(shape.output_size(trace.input_size)) * trace.calls
        images = PATCHES_PER_DIMENSION * math.prod(inputs) / patches
        batches = max(math.ceil(images / len(self._calibration[0])), MOMENT_BATCHES)
        return min(batches, len(self._calibration))

    def _inputs(
        self, batches: Sequence[Tensor], names: Sequence[str]
    ) -> dict[str, Tensor | ModeMoments]:
        """The finest form of each layer's second moment that fits; none where none does."""
        whole, by_mode, by_channel = [], [], []
        for name in names:
            shape = self._shapes[name]
            if moment_bytes(shape) <= self._limit:
                whole.append(name)
            elif mode_bytes(shape) <= self._limit:
                by_mode.append(name)
            elif mode_bytes(shape, diagonal=True) <= self._limit:
                by_channel.append(name)
        found: dict[str, Tensor | ModeMoments] = {}
        if whole:
            found |= {n: m.metric for n, m in moments(self._dense, batches, whole).items()}
        for group, diagonal in ((by_mode, False), (by_channel, True)):
            if group:
                found |= mode_moments(self._dense, batches, group, diagonal=diagonal)
        return found

    def _outputs(
        self, batches: Sequence[Tensor], names: Sequence[str]
    ) -> dict[str, tuple[Tensor, float]]:
        """G of each layer, and half the outputs that an input of the network has of it."""
        wide = {name for name in names if gradient_bytes(self._shapes[name]) > self._limit}
        found = gradient_moments(
            self._dense,
            _parts(batches),
            names,
            diagonal=wide,
            likelihood=self._likelihood,
        )
        return {name: (each.metric, each.count / each.inputs / 2) for name, each in found.items()}


def _parts(batches: Sequence[Tensor]) -> Iterator[Tensor]:
    return (
        batch[first : first + BACKWARD_IMAGES]
        for batch in batches
        for first in range(0, len(batch), BACKWARD_IMAGES)
    )


def _layer_metrics(
    shape: LayerShape,
    inputs: Tensor | ModeMoments | None,
    outputs: tuple[Tensor, float] | None,
) -> LayerMetrics:
    forms: list[Tensor | ModeMoments] = [] if inputs is None else [inputs]
    if isinstance(inputs, Tensor):
        forms.append(ModeMoments.of(inputs, kernel_size(shape)[1:]))
    if outputs is None:
        return LayerMetrics(
            (*(form if isinstance(form, Tensor) else Metric(form) for form in forms), None)
        )
    moment, scale = outputs
    return LayerMetrics((*(Metric(form, moment) for form in (*forms, None)), None), scale)
