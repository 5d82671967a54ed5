"""The factors of a network's layers, at any choice: found when they are first needed, and once."""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from compress.calibration import LayerMoments, Trace, moments
from compress.equivalent import OutputError, dense_weight
from compress.errors import CompressError
from compress.kernels import kernel_of, kernel_size
from compress.memory import moment_bytes, peak_bytes
from compress.methods.method import StagedFactors
from compress.methods.registry import method_named
from compress.plan import Choice
from compress.shape import LayerShape

PATCHES_PER_DIMENSION = 8
MOMENT_BATCHES = 2  # at least, of calibration images


class Factors:
    """Moments, decompositions and factors of the layers of one dense network.

    Args:
        dense: the network.
        shapes: of its layers that can be factorised.
        traces: how it uses them.
        calibration: batches of inputs.
        max_memory_bytes: that collecting the moments of a layer, or decomposing it, may take.
    """

    def __init__(
        self,
        dense: nn.Module,
        shapes: Mapping[str, LayerShape],
        traces: Mapping[str, Trace],
        calibration: Sequence[Tensor],
        max_memory_bytes: int,
    ) -> None:
        self._dense = dense
        self._shapes = shapes
        self._traces = traces
        self._calibration = calibration
        self._limit = max_memory_bytes
        self._moments: dict[str, LayerMoments] = {}
        self._decompositions: dict[tuple[str, str, bool], StagedFactors] = {}
        self._outputs: dict[str, OutputError] = {}
        self._factors: dict[tuple[str, Choice], dict[str, Tensor]] = {}

    def of(self, name: str, choice: Choice) -> dict[str, Tensor]:
        """The weights of a layer's stages, in the norm of its inputs where they were collected.

        Raises:
            CompressError: the ranks do not fit, the decomposition does not converge, or there is
                no memory for it.
        """
        if (name, choice) not in self._factors:
            dtype = self._weight(name).dtype
            try:
                found = self._decomposition(name, choice).factors(choice.ranks)
            except LinAlgError as error:
                raise CompressError(f"{choice} of {name!r} does not converge: {error}") from error
            self._factors[name, choice] = {stage: f.to(dtype) for stage, f in found.items()}
        return self._factors[name, choice]

    def error(self, name: str, choice: Choice) -> float:
        """Squared relative output error of a layer's factors, on its inputs where collected.

        Raises:
            CompressError: as `of`.
        """
        factors, decomposition = self.of(name, choice), self._decomposition(name, choice)
        if decomposition.metric is self.metric(name):
            known = decomposition.error(choice.ranks)
            if known is not None:
                return known
        shape = self._shapes[name]
        if name not in self._outputs:
            self._outputs[name] = OutputError(
                kernel_of(shape, self._weight(name)), self.metric(name)
            )
        stages = decomposition.method.stages(shape, choice.ranks)
        return self._outputs[name].of(dense_weight(shape, stages, factors))

    def known(self, name: str, choice: Choice) -> bool:
        """Whether the factors of this choice are there, so that nothing need be decomposed."""
        return (name, choice) in self._factors

    def metric(self, name: str) -> Tensor | None:
        """The second moment of a layer's input patches; None: the plain norm."""
        return self._moments[name].second if name in self._moments else None

    def collect(self, names: Collection[str]) -> None:
        """Run calibration images through the dense network, for the inputs of these layers.

        As many images as give eight patches for each dimension D of a patch, 128 at least: a layer
        on a large image has seen enough of it long before the last one.
        """
        groups: dict[int, list[str]] = defaultdict(list)
        for name in names:
            shape, trace = self._shapes[name], self._traces[name]
            if name in self._moments or moment_bytes(shape) > self._limit:
                continue
            _, *inputs = kernel_size(shape)
            patches = math.prod(shape.output_size(trace.input_size)) * trace.calls
            images = PATCHES_PER_DIMENSION * math.prod(inputs) / patches
            batches = max(math.ceil(images / len(self._calibration[0])), MOMENT_BATCHES)
            groups[min(batches, len(self._calibration))].append(name)
        for batches, group in groups.items():
            self._moments |= moments(self._dense, self._calibration[:batches], group)

    def settle(self, name: str, choices: Collection[Choice]) -> None:
        """Keep a layer's factors for these choices, and let go of what they were found with."""
        self._moments.pop(name, None)
        self._outputs.pop(name, None)
        for known in [key for key in self._decompositions if key[0] == name]:
            del self._decompositions[known]
        for key in [key for key in self._factors if key[0] == name and key[1] not in choices]:
            del self._factors[key]

    def _decomposition(self, name: str, choice: Choice) -> StagedFactors:
        """In the norm of the inputs where that fits into memory, else in the plain norm.

        Raises:
            CompressError: the plain norm does not fit either.
        """
        shape, metric = self._shapes[name], self.metric(name)

        def needed(*, data_aware: bool) -> int:
            return peak_bytes(shape, choice.method, choice.ranks, data_aware=data_aware)

        if metric is not None and needed(data_aware=True) > self._limit:
            metric = None
        if metric is None and (needs := needed(data_aware=False)) > self._limit:
            raise CompressError(
                f"{choice} of {name!r} needs {needs:,} bytes, "
                f"limits.max_memory_bytes is {self._limit:,}"
            )
        key = name, choice.method, metric is not None
        if key not in self._decompositions:
            self._decompositions[key] = method_named(choice.method).decompose(
                shape, self._weight(name).double(), metric
            )
        return self._decompositions[key]

    def _weight(self, name: str) -> Tensor:
        return self._dense.get_submodule(name).get_parameter("weight")
