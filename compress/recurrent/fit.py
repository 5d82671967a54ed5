"""A matrix in any format, close to a trained one where its inputs are.

From the better of two starts, one in the plain norm and one in coordinates in which the inputs
would be white were their modes independent, all factors are fitted together to the outputs
(L-BFGS: Liu and Nocedal, "On the Limited Memory BFGS Method for Large Scale Optimization", 1989).
The loss never rises. Where the outputs do not count alike, each is weighed by itself: modes of the
outputs leave no room for a moment that mixes all of them; `svd` takes the whole one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.decompose.linalg import (
    SINGLE,
    exact,
    exact_metric,
    falling_eigenvectors,
    kronecker_likelihood,
    roots,
)
from compress.equivalent import relative
from compress.methods.svd import SVD
from compress.metric import Metric, ModeMoments
from compress.recurrent.contraction import best_order
from compress.recurrent.formats import Ranks, network_of
from compress.recurrent.modes import Modes
from compress.recurrent.projection import Projection
from compress.recurrent.starts import Factors, started
from compress.shape import LinearShape

STEPS = 100
MEMORY = 10  # steps that L-BFGS looks back on
STALLED = 1e-7  # of the energy: a step that gains less is the last
# Of the largest variance: directions below it are left out of the loss.
UNSEEN = 1e-12
LEAST = 1e-6  # of what an output counts for on average: the least of any


@dataclass(frozen=True, slots=True)
class Fit:
    """What stands for a matrix, and how far off its outputs are."""

    projection: Projection
    error: float
    """Squared, relative to the energy of the outputs."""


def fit(
    name: str, weight: Tensor, modes: Modes, ranks: Ranks, metric: Metric | Tensor | None = None
) -> Fit:
    """A projection in the dtype and on the device of the weight.

    Args:
        name: of the format.
        weight: (M, N), that of all gates.
        modes: of that matrix.
        ranks: of the format.
        metric: second moment (N, N) of the inputs, or any other norm; None for the plain one.

    Raises:
        RankError: the modes or the ranks are not those of such a matrix.
        DegenerateError: the terms of a start grow to cancel each other.
        CompressError: the weight or the metric is not finite, or they do not fit.
    """
    modes.check(*weight.shape)
    network = network_of(name, modes, ranks)
    projection = Projection(
        network.sizes, network.inputs, network.outputs, network.factors, best_order(network)
    ).to(weight.device, torch.float64)
    target = _Target(exact(weight), *_parted(metric, weight))
    if name == "svd":
        _set_(projection, svd_factors(weight, ranks, metric))
    else:
        starts = target.starts(name, modes, ranks)
        _set_(projection, min(starts, key=lambda factors: target.error_of(projection, factors)))
        target.descend_(projection)
    error = relative(target.error(projection), target.energy)
    return Fit(projection.to(weight.dtype), error)


def svd_factors(weight: Tensor, ranks: Ranks, metric: Metric | Tensor | None) -> Factors:
    """The factors of format `svd`, best in any norm; in float64."""
    outputs, inputs = weight.shape
    shape = LinearShape(in_features=inputs, out_features=outputs, bias=False)
    return named(SVD.decompose(shape, exact(weight), metric).factors(ranks))


def named(stages: Mapping[str, Tensor]) -> Factors:
    """The stages of method `svd` by the names of the factors of format `svd`."""
    return {"in_factor": stages["reduce"], "out_factor": stages["expand"]}


def _parted(metric: Metric | Tensor | None, weight: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The moment of the inputs (N, N), and what the square of each output counts for, (M,)."""
    metric = Metric.of(metric)
    moment = metric.inputs
    if isinstance(moment, ModeMoments):
        moment = moment.channels
    if moment is not None and moment.ndim == 1:
        moment = moment.diag()
    outputs = metric.outputs
    if outputs is not None:
        outputs = (outputs if outputs.ndim == 1 else outputs.diagonal()).to(weight.device)
        outputs = outputs.double() + LEAST * outputs.mean()
    return exact_metric(moment, weight), outputs


class _Target:
    """What the projection of a matrix W (M, N) is to put out.

    Args:
        weight: float64.
        metric: float64, (N, N), or None.
        importance: float64, (M,), or None.
    """

    def __init__(
        self, weight: Tensor, metric: Tensor | None, importance: Tensor | None = None
    ) -> None:
        scale = weight.new_ones(len(weight)) if importance is None else importance.sqrt()
        self._scale = scale
        self._weight, self._metric = weight, metric
        if metric is None:
            self._inputs = torch.eye(weight.shape[1]).to(weight)
        else:
            variances, directions = falling_eigenvectors(metric)
            seen = variances > UNSEEN * variances[0]
            self._inputs = (directions * variances.sqrt())[:, seen].T
        self._outputs = self._inputs @ weight.T * scale
        self.energy = float(self._outputs.square().sum())

    @torch.no_grad()
    def error(self, projection: Projection) -> float:
        """The squared error of the outputs."""
        return float((projection(self._inputs) * self._scale - self._outputs).square().sum())

    def error_of(self, projection: Projection, factors: Factors) -> float:
        """That of other factors, which the projection has from then on."""
        _set_(projection, factors)
        return self.error(projection)

    def starts(self, name: str, modes: Modes, ranks: Ranks) -> Iterator[Factors]:
        """In the plain norm, and where there is a metric in white coordinates."""
        yield started(name, self._weight, modes, ranks)
        if self._metric is None:
            return
        own, rest = list[Tensor](), self._metric
        for size in modes.inputs[:-1]:
            along, rest = kronecker_likelihood(rest, size, len(rest) // size)
            own.append(along)
        whitening = [roots(moment) for moment in (*own, rest)]
        white = self._weight.reshape(-1, *modes.inputs)
        for root, _ in whitening:
            white = torch.tensordot(white, root, ([1], [0]))  # the next mode comes up
        factors = started(name, white.flatten(1), modes, ranks)
        labels = network_of(name, modes, ranks).factors
        for i, (_, inverse) in enumerate(whitening, 1):
            (factor,) = (key for key, axes in labels.items() if f"n{i}" in axes)
            axis = labels[factor].index(f"n{i}")
            back = torch.tensordot(factors[factor], inverse, ([axis], [0]))
            factors[factor] = back.movedim(-1, axis)
        yield factors

    def descend_(self, projection: Projection) -> None:
        """Fit all factors together: in float32 for as long as round-off is far below the error."""
        few = SINGLE * self.energy
        for dtype, fits in ((torch.float32, few.__lt__), (torch.float64, few.__ge__)):
            before, begin = self.error(projection), _values(projection)
            if self.energy and fits(before):
                self._descend_(projection, dtype)
                if not self.error(projection) <= before:  # NaN too
                    _set_(projection, begin)

    @torch.enable_grad()
    def _descend_(self, projection: Projection, dtype: torch.dtype) -> None:
        inputs, outputs, scale = (
            each.to(dtype) for each in (self._inputs, self._outputs, self._scale)
        )
        projection.to(dtype)
        optimiser = torch.optim.LBFGS(
            projection.parameters(),
            max_iter=STEPS,
            history_size=MEMORY,
            tolerance_grad=0.0,
            tolerance_change=STALLED,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            optimiser.zero_grad()
            loss = (projection(inputs) * scale - outputs).square().sum() / self.energy
            loss.backward()
            return loss

        optimiser.step(closure)  # type: ignore[no-untyped-call]
        optimiser.zero_grad()
        projection.to(torch.float64)


def _values(projection: Projection) -> Factors:
    return {name: value.clone() for name, value in projection.state_dict().items()}


def _set_(projection: Projection, factors: Factors) -> None:
    projection.load_state_dict(
        {
            name: factors[name].reshape(parameter.shape)
            for name, parameter in projection.named_parameters()
        }
    )
