"""The factors of a network's layers, at any choice: found when they are first needed, and once."""

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from compress.equivalent import dense_weight
from compress.errors import CompressError
from compress.kernels import kernel_of
from compress.memory import coordinate_bytes, fit_bytes, peak_bytes
from compress.methods.groups import groups_of
from compress.methods.method import StagedFactors
from compress.methods.registry import method_named
from compress.metric import Metric, MetricError
from compress.plan import Choice
from compress.recurrent.fit import fit, named
from compress.recurrent.methods import blank_projection, modes_of, network
from compress.recurrent.projection import Projection
from compress.shape import LayerShape, WeightShape
from search.metrics import Metrics


class Factors:
    """Decompositions and factors of the layers of one dense network.

    Args:
        dense: the network, its recurrent layers open.
        shapes: of its layers, and weights of recurrent layers, that can be factorised.
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
        """The weights of a layer's stages, or the factors of a recurrent layer's weight.

        Found in the finest norm that fits into memory.

        Raises:
            CompressError: the ranks do not fit, the decomposition does not converge, or there is
                no memory for it.
        """
        if (name, choice) not in self._factors:
            dtype = self._weight(name).dtype
            try:
                found = self._found(name, choice)
            except LinAlgError as error:
                raise CompressError(f"{choice} of {name!r} does not converge: {error}") from error
            self._factors[name, choice] = {stage: f.to(dtype) for stage, f in found.items()}
        return self._factors[name, choice]

    def projection(self, name: str, choice: Choice) -> Projection:
        """What stands in for a weight of a recurrent layer, with values of its own.

        Raises:
            CompressError: as `of`.
        """
        projection = blank_projection(self._weight_shape(name), choice).to(self._weight(name))
        state = {
            key: factor.reshape(projection.get_parameter(key).shape)
            for key, factor in self.of(name, choice).items()
        }
        projection.load_state_dict(state)
        return projection

    def error(self, name: str, choice: Choice) -> float:
        """Squared relative error of a layer's factors, in its finest norm.

        Raises:
            CompressError: as `of`.
        """
        factors = self.of(name, choice)
        if not self._is_fitted(name, choice):
            decomposition = self._decomposition(name, choice)
            if decomposition.metric is self.metric(name):
                known = decomposition.error(choice.ranks)
                if known is not None:
                    return known
        shape = self._shapes[name]
        if isinstance(shape, WeightShape):
            approximation = self._matrix(name, choice)
        else:
            stages = method_named(choice.method).stages(shape, choice.ranks)
            approximation = dense_weight(shape, stages, factors)
        return self._errors_of(name).of(approximation)

    def loss(self, name: str, choice: Choice) -> float:
        """What the table predicts: the error, or by importance "loss" the rise of the loss.

        Raises:
            CompressError: as `of`.
        """
        error, scale = self.error(name, choice), self._metrics.of(name).scale
        return error if scale is None else error * scale * self._errors_of(name).energy

    def is_weight(self, name: str) -> bool:
        """Whether a name is that of a recurrent layer's weight."""
        return isinstance(self._shapes[name], WeightShape)

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

    def _found(self, name: str, choice: Choice) -> dict[str, Tensor]:
        if self._is_fitted(name, choice):
            return self._fitted(name, choice)
        stages = self._decomposition(name, choice).factors(choice.ranks)
        return named(stages) if self.is_weight(name) else stages

    def _is_fitted(self, name: str, choice: Choice) -> bool:
        """Whether all ranks need a search of their own, so that nothing is shared."""
        return self.is_weight(name) and choice.method != "svd"

    def _fitted(self, name: str, choice: Choice) -> dict[str, Tensor]:
        """In the finest norm that fits into memory.

        Raises:
            CompressError: the plain norm does not fit either.
        """
        shape = self._weight_shape(name)
        with torch.device("meta"):
            widest = blank_projection(shape, choice).widest
        needs = fit_bytes(shape, network(shape, choice), widest)
        _, metric = self._fitting(name, choice, lambda _: needs)
        modes = modes_of(shape, choice)
        found = fit(choice.method, self._weight(name), modes, choice.ranks, metric)
        return dict(found.projection.state_dict())

    def _matrix(self, name: str, choice: Choice) -> Tensor:
        """(O, I) of what stands in for a weight, in float64."""
        projection = self.projection(name, choice).double()
        unit = torch.eye(projection.in_features).to(next(projection.parameters()))
        with torch.no_grad():
            return projection(unit).T

    def _weight_shape(self, name: str) -> WeightShape:
        shape = self._shapes[name]
        assert isinstance(shape, WeightShape)
        return shape

    def _decomposition(self, name: str, choice: Choice) -> StagedFactors:
        """In the finest norm that fits into memory.

        Raises:
            CompressError: the plain norm does not fit either.
        """
        shape = self._shapes[name]

        def needs(metric: Metric | Tensor | None) -> int:
            is_whole = isinstance(Metric.of(metric).inputs, Tensor)
            return peak_bytes(shape, choice.method, choice.ranks, data_aware=is_whole)

        number, metric = self._fitting(name, choice, needs)
        key = name, choice.method, number
        if key not in self._decompositions:
            plain = shape.plain if isinstance(shape, WeightShape) else shape
            self._decompositions[key] = method_named(choice.method).decompose(
                plain, self._weight(name).double(), metric
            )
        return self._decompositions[key]

    def _fitting(
        self,
        name: str,
        choice: Choice,
        needs_in: Callable[[Metric | Tensor | None], int],
    ) -> tuple[int, Metric | Tensor | None]:
        """The finest metric that fits into memory, with its number.

        Args:
            name: of the layer.
            choice: that it is for.
            needs_in: bytes that it takes in a metric, the metric itself left out.

        Raises:
            CompressError: the plain norm does not fit either.
        """
        shape, needs = self._shapes[name], 0
        for number, metric in enumerate(self._metrics.of(name).metrics):
            needs = needs_in(metric) + coordinate_bytes(shape, metric)
            if needs <= self._limit:
                return number, metric
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
