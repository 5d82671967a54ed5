"""A trained recurrent layer made factorised."""

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from compress.errors import PlanError, WeightsError
from compress.metric import Metric
from compress.plan import Choice
from compress.recurrent.fit import Fit, fit
from compress.recurrent.layer import Recurrent
from compress.recurrent.methods import modes_of
from compress.recurrent.methods import network as check
from compress.recurrent.weights import weights_of

Layer = TypeVar("Layer", bound=Recurrent)


def factorize(
    layer: nn.RNNBase,
    choices: Mapping[str, Choice],
    moments: Mapping[str, Metric | Tensor] | None = None,
) -> tuple[Recurrent, dict[str, float]]:
    """The layer with some of its weights factorised; `layer` is left as it is.

    Args:
        layer: an LSTM, GRU or RNN of torch.
        choices: name of a weight, as `weight_hh_l0` -> what stands in for it; its gates are
            factorised together.
        moments: name of a weight -> second moment of what it is multiplied by, as `moments_of`
            finds them, or any other norm; the plain norm where there is none.

    Returns:
        The layer, and of each factorised weight the squared relative error of its outputs.

    Raises:
        PlanError: the layer has no such weight.
        WeightsError: one of its weights or biases is not finite.
        CompressError: a weight cannot be factorised so; the note names it.
    """
    shapes = weights_of(layer)
    if unknown := sorted(choices.keys() - shapes.keys()):
        raise PlanError(f"{type(layer).__name__} has no weights {unknown}")
    check_finite(layer)
    fits: dict[str, Fit] = {}
    for name, choice in choices.items():
        try:
            metric = (moments or {}).get(name)
            check(shapes[name], choice)
            modes = modes_of(shapes[name], choice)
            weight = layer.get_parameter(name).detach()
            fits[name] = fit(choice.method, weight, modes, choice.ranks, metric)
        except Exception as error:
            error.add_note(f"of {name}")
            raise
    weights = {name: found.projection for name, found in fits.items()}
    return copied(layer, Recurrent, weights), {name: found.error for name, found in fits.items()}


def check_finite(layer: nn.Module) -> None:
    """Refuse a layer that holds values that are not finite.

    Raises:
        WeightsError: naming the first weight or bias.
    """
    for name, value in layer.named_parameters():
        if not bool(value.isfinite().all()):
            raise WeightsError(f"{name} holds NaN or infinite values; finite ones were wanted")


def copied(
    layer: nn.RNNBase,
    kind: type[Layer],
    weights: Mapping[str, nn.Module] | None = None,
    *,
    sharing: bool = False,
) -> Layer:
    """A layer of ours with the values of `layer`, but for the given weights.

    Args:
        layer: of torch.
        kind: of the copy.
        weights: name of a weight -> what stands in for it, which the copy takes over.
        sharing: the values are those of `layer` itself, not copies.
    """
    with torch.device("meta"):
        copy = kind(
            layer.mode,
            layer.input_size,
            layer.hidden_size,
            layer.num_layers,
            layer.bias,
            layer.batch_first,
            layer.dropout,
            layer.bidirectional,
            layer.proj_size,
            weights=weights,
        )
    for name, module in copy.named_children():
        weight = layer.get_parameter(name)
        module.to(weight).requires_grad_(weight.requires_grad)
    for name, _ in [*copy.named_parameters(recurse=False)]:
        value = layer.get_parameter(name)
        own = value if sharing else nn.Parameter(value.detach().clone(), value.requires_grad)
        setattr(copy, name, own)
    return copy.train(layer.training)
