"""The weights of a network's recurrent layers, each a row of its own: MODULE.WEIGHT."""

from typing import Final, TypeGuard

from torch import nn

from compress.shape import WeightShape

RECURRENT: Final = (nn.LSTM, nn.GRU, nn.RNN)  # a subclass may compute otherwise


def is_recurrent(layer: nn.Module) -> TypeGuard[nn.RNNBase]:
    """Whether the layer is torch's own, not a subclass, and computes no weight."""
    return type(layer) in RECURRENT


def weights_of(layer: nn.RNNBase) -> dict[str, WeightShape]:
    """The weights of a recurrent layer by their names, biases left out, in torch's order."""
    kind = type(layer).__name__
    return {
        name: WeightShape(layer=kind, in_features=value.shape[1], out_features=value.shape[0])
        for name, value in layer.named_parameters(recurse=False)
        if value.ndim == 2
    }


def joined(module: str, weight: str) -> str:
    """The name of a weight's row; a network may be the recurrent layer itself."""
    return f"{module}.{weight}".removeprefix(".")


def parted(name: str) -> tuple[str, str]:
    """The module and the weight of such a name."""
    module, _, weight = name.rpartition(".")
    return module, weight
