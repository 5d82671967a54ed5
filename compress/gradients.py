"""Second moments of the loss's gradients at the outputs of layers: what an error there costs.

Labels are not needed. The gradients come from the network's own answers: with p the predicted
distribution, the gradient at the logits is B e with B B^T = diag(p) - p p^T, their Fisher
information, and e random signs (Martens, Sutskever and Swersky, "Estimating the Hessian by
Back-propagating Curvature", 2012). Its second moment is exactly that of labels drawn from p, at
far less variance: where the network is sure, hardly any drawn label would be another than its
answer, and the gradients of nearly all inputs would vanish.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from compress.calibration import evaluating
from compress.errors import CompressError
from compress.kernels import kernel_size
from compress.layers import shape_of
from compress.methods.groups import groups_of
from compress.shape import ConvShape
from compress.shrinkage import shrunk

Likelihood = Literal["classes", "values"]
"""What an answer says: the logits (N, C, ...) of classes, or values, of variance one."""


@dataclass(frozen=True, slots=True)
class GradientMoments:
    """Averages over all outputs of a layer, on the layer's device."""

    second: Tensor  # (O, O) or (G, O / G, O / G) float64, the mean of g g^T; (O,) its diagonal
    count: int
    inputs: int  # of the network, over which the loss was summed
    is_diagonal: bool = False

    @property
    def metric(self) -> Tensor:
        """What to decompose by: of few gradients drawn towards equal variances."""
        return self.second if self.is_diagonal else shrunk(self.second, self.count)


def gradient_moments(
    model: nn.Module,
    batches: Iterable[Tensor],
    names: Iterable[str],
    *,
    diagonal: Collection[str] = (),
    labels: Iterable[Tensor] | None = None,
    likelihood: Likelihood = "classes",
) -> dict[str, GradientMoments]:
    """The second moment of each input's loss gradient at the outputs of the layers `names`.

    One pass forward and backward over the batches, in eval mode; the activations of one batch are
    held. Every call of a layer counts. Zeros of a layer that no answer depends
    on. The same call, the same result.

    Args:
        model: answers a batch by one tensor.
        batches: of inputs, (N, ...) each.
        names: of plain layers.
        diagonal: those of which the variances alone are wanted.
        labels: of each batch, (N,), where the gradients are to be those of their cross-entropy.
        likelihood: of the answers, where there are no labels.

    Raises:
        UnsupportedLayerError: a layer is no plain convolution and no plain Linear.
        CompressError: a gradient is not finite.
    """
    sums = {name: _Sums(model.get_submodule(name), diagonal=name in diagonal) for name in names}
    generator = torch.Generator().manual_seed(0)
    given = None if labels is None else iter(labels)
    inputs = 0
    with evaluating(model), _frozen(model), _watching_gradients(sums.values()), torch.enable_grad():
        for batch in batches:
            answers = model(batch)
            inputs += len(batch)
            if answers.requires_grad:
                exact = answers.detach().double()
                slope = (
                    _drawn(exact, likelihood, generator)
                    if given is None
                    else _of_labels(exact, next(given))
                )
                answers.backward(slope.to(answers))
    return {name: entry.averages(name, inputs) for name, entry in sums.items()}


def _drawn(answers: Tensor, likelihood: Likelihood, generator: torch.Generator) -> Tensor:
    """A random gradient at the answers whose second moment is their Fisher information."""
    drawn = torch.randint(2, answers.shape, generator=generator, dtype=torch.float64)
    signs = (2 * drawn - 1).to(answers)
    if likelihood == "values":
        return signs
    shares = answers.softmax(1)
    deviations = shares.sqrt() * signs
    return deviations - shares * deviations.sum(1, keepdim=True)


def _of_labels(answers: Tensor, labels: Tensor) -> Tensor:
    wanted = torch.nn.functional.one_hot(labels.to(answers.device), answers.shape[1])
    return answers.softmax(1) - wanted


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No gradients of parameters; afterwards each wants what it wanted."""
    wanting = [weight for weight in model.parameters() if weight.requires_grad]
    try:
        for weight in wanting:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in wanting:
            weight.requires_grad_(True)


@contextmanager
def _watching_gradients(sums: "Iterable[_Sums]") -> Iterator[None]:
    """Hand the gradient at the outputs of each layer to its sums."""

    def hook(
        _module: nn.Module, _args: tuple[Any, ...], y: Tensor, *, add: Callable[[Tensor], None]
    ) -> Tensor:
        if not y.requires_grad:  # a copy: what follows may write into it, which no leaf allows
            y = y.detach().requires_grad_().clone()
        y.register_hook(add)  # type: ignore[no-untyped-call]
        return y

    with ExitStack() as stack:
        for entry in sums:
            handle = entry.layer.register_forward_hook(partial(hook, add=entry.add))
            stack.callback(handle.remove)
        yield


class _Sums:
    """Running sums over the gradients at the outputs of one layer."""

    def __init__(self, layer: nn.Module, *, diagonal: bool) -> None:
        self.layer = layer
        self._shape = shape_of(layer)
        groups, outputs = groups_of(self._shape), kernel_size(self._shape)[0]
        self._size = groups, outputs // groups
        size = self._size if diagonal else (*self._size, outputs // groups)
        device = next(layer.parameters()).device
        self._second = torch.zeros(size, dtype=torch.float64, device=device)
        self._count = 0

    def add(self, gradient: Tensor) -> None:
        if isinstance(self._shape, ConvShape):
            gradient = gradient.movedim(-1 - self._shape.axes, -1)
        rows = gradient.reshape(-1, *self._size).transpose(0, 1)  # (G, outputs, O / G)
        if rows.dtype in (torch.float16, torch.bfloat16):
            rows = rows.float()
        self._second += rows.square().sum(1) if self._second.ndim == 2 else rows.mT @ rows
        self._count += rows.shape[1]

    def averages(self, name: str, inputs: int) -> GradientMoments:
        second = self._second / max(self._count, 1)
        if second.ndim == 3:
            second = (second + second.mT) / 2
        if not second.isfinite().all():
            raise CompressError(f"the gradient at the outputs of layer {name!r} is not finite")
        joined = second[0] if len(second) == 1 else second
        return GradientMoments(joined, self._count, inputs, is_diagonal=second.ndim == 2)
