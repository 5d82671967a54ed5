"""A trained recurrent layer made factorised."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from compress.errors import PlanError, WeightsError
from compress.recurrent.fit import Fit, fit
from compress.recurrent.formats import Ranks
from compress.recurrent.layer import Recurrent
from compress.recurrent.modes import Modes

Layer = TypeVar("Layer", bound=Recurrent)


@dataclass(frozen=True, slots=True)
class Choice:
    """What stands in for one weight; its gates are factorised together."""

    format: str
    modes: Modes
    ranks: Ranks


def factorize(
    layer: nn.RNNBase,
    choices: Mapping[str, Choice],
    moments: Mapping[str, Tensor] | None = None,
) -> tuple[Recurrent, dict[str, float]]:
    """The layer with some of its weights factorised; `layer` is left as it is.

    Args:
        layer: an LSTM, GRU or RNN of torch.
        choices: name of a weight, as `weight_hh_l0` -> what stands in for it.
        moments: name of a weight -> second moment of what it is multiplied by, as `moments_of`
            finds them; the plain norm where there is none.

    Returns:
        The layer, and of each factorised weight the squared relative error of its outputs.

    Raises:
        PlanError: the layer has no such weight.
        WeightsError: one of its weights or biases is not finite.
        CompressError: a weight cannot be factorised so; the note names it.
    """
    held = dict(layer.named_parameters())
    if unknown := sorted(name for name in choices if not _is_weight(held, name)):
        raise PlanError(f"{type(layer).__name__} has no weights {unknown}")
    for name, value in held.items():
        if not bool(value.isfinite().all()):
            raise WeightsError(f"{name} holds NaN or infinite values; finite ones were wanted")
    fits: dict[str, Fit] = {}
    for name, choice in choices.items():
        try:
            metric = (moments or {}).get(name)
            fits[name] = fit(choice.format, held[name], choice.modes, choice.ranks, metric)
        except Exception as error:
            error.add_note(f"of {name}")
            raise
    weights = {name: found.projection for name, found in fits.items()}
    return copied(layer, Recurrent, weights), {name: found.error for name, found in fits.items()}


def copied(
    layer: nn.RNNBase, kind: type[Layer], weights: Mapping[str, nn.Module] | None = None
) -> Layer:
    """A layer of ours with values of its own: those of `layer`, but for the given weights."""
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
    copy.to(layer.get_parameter("weight_ih_l0"))
    with torch.no_grad():
        for name, value in copy.named_parameters(recurse=False):
            value.copy_(layer.get_parameter(name))
            value.requires_grad_(layer.get_parameter(name).requires_grad)
    return copy.train(layer.training)


def _is_weight(held: Mapping[str, Tensor], name: str) -> bool:
    return name in held and held[name].ndim == 2
