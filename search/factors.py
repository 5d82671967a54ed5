"""The factors of a network's layers, at any choice: found when they are first needed, and once."""

from collections.abc import Collection, Mapping

from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from compress.equivalent import dense_weight
from compress.errors import CompressError
from compress.kernels import kernel_of
from compress.memory import coordinate_bytes, peak_bytes
from compress.methods.groups import groups_of
from compress.methods.method import StagedFactors
from compress.methods.registry import method_named
from compress.metric import Metric, MetricError
from compress.plan import Choice
from compress.shape import LayerShape
from search.metrics import Metrics


class Factors:
    """Decompositions and factors of the layers of one dense network.

    Args:
        dense: the network.
        shapes: of its layers that can be factorised.
        metrics: that they are decomposed in.
        max_memory_bytes: that decomposing a layer may take.
    """

    def __init__(
        self,
        dense: nn.Module,
        shapes: Mapping[str, LayerShape],
        metrics: Metrics,
        max_memory_bytes: int,
    ) -> None:
        self._dense = dense
        self._shapes = shapes
        self._metrics = metrics
        self._limit = max_memory_bytes
        self._decompositions: dict[tuple[str, str, int], StagedFactors] = {}
        self._errors: dict[str, MetricError] = {}
        self._factors: dict[tuple[str, Choice], dict[str, Tensor]] = {}

    def of(self, name: str, choice: Choice) -> dict[str, Tensor]:
        """The weights of a layer's stages, found in the finest norm that fits into memory.

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
        """Squared relative error of a layer's factors, in its finest norm.

        Raises:
            CompressError: as `of`.
        """
        factors, decomposition = self.of(name, choice), self._decomposition(name, choice)
        if decomposition.metric is self.metric(name):
            known = decomposition.error(choice.ranks)
            if known is not None:
                return known
        shape = self._shapes[name]
        stages = decomposition.method.stages(shape, choice.ranks)
        return self._errors_of(name).of(dense_weight(shape, stages, factors))

    def loss(self, name: str, choice: Choice) -> float:
        """What the table predicts: the error, or by importance "loss" the rise of the loss.

        Raises:
            CompressError: as `of`.
        """
        error, scale = self.error(name, choice), self._metrics.of(name).scale
        return error if scale is None else error * scale * self._errors_of(name).energy

    def known(self, name: str, choice: Choice) -> bool:
        """Whether the factors of this choice are there, so that nothing need be decomposed."""
        return (name, choice) in self._factors

    def metric(self, name: str) -> Metric | Tensor | None:
        """The finest norm of a layer: a second moment of its input patches alone, that and one of
        the gradients at its outputs, or None, the plain norm."""
        return self._metrics.of(name).metrics[0]

    def collect(self, names: Collection[str]) -> None:
        """See `Metrics.collect`."""
        self._metrics.collect(names)

    def settle(self, name: str, choices: Collection[Choice]) -> None:
        """Keep a layer's factors for these choices, and let go of what they were found with."""
        self._metrics.let_go(name)
        self._errors.pop(name, None)
        for known in [key for key in self._decompositions if key[0] == name]:
            del self._decompositions[known]
        for key in [key for key in self._factors if key[0] == name and key[1] not in choices]:
            del self._factors[key]

    def _decomposition(self, name: str, choice: Choice) -> StagedFactors:
        """In the finest norm that fits into memory.

        Raises:
            CompressError: the plain norm does not fit either.
        """
        shape, metrics, needs = self._shapes[name], self._metrics.of(name).metrics, 0
        for number, metric in enumerate(metrics):
            is_whole = isinstance(Metric.of(metric).inputs, Tensor)
            needs = peak_bytes(shape, choice.method, choice.ranks, data_aware=is_whole)
            needs += coordinate_bytes(shape, metric)
            if needs > self._limit:
                continue
            key = name, choice.method, number
            if key not in self._decompositions:
                self._decompositions[key] = method_named(choice.method).decompose(
                    shape, self._weight(name).double(), metric
                )
            return self._decompositions[key]
        raise CompressError(
            f"{choice} of {name!r} needs {needs:,} bytes, "
            f"limits.max_memory_bytes is {self._limit:,}"
        )

    def _errors_of(self, name: str) -> MetricError:
        if name not in self._errors:
            shape = self._shapes[name]
            kernel = kernel_of(shape, self._weight(name))
            self._errors[name] = MetricError(kernel, self.metric(name), groups_of(shape))
        return self._errors[name]

    def _weight(self, name: str) -> Tensor:
        return self._dense.get_submodule(name).get_parameter("weight")
