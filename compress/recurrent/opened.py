"""A network whose recurrent layers are open: each weight is a linear layer that is called.

What is known of linear layers, how they are used, what enters them and how much the loss feels of
what they put out, is then known of every weight: `compress.calibration` and `compress.gradients`
see MODULE.WEIGHT as one more Linear, called at each time step.
"""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from compress.calibration import evaluating
from compress.load import replace_
from compress.recurrent.layer import Product, Recurrent
from compress.recurrent.surgery import copied
from compress.recurrent.weights import is_recurrent, weights_of


class Opened(Recurrent):
    """Whose weights are linear layers without bias."""

    def _product(self, name: str) -> Product:
        layer = self.get_submodule(name)
        return lambda x, add: layer(x) if add is None else layer(x) + add


def opened(model: nn.Module) -> nn.Module:
    """The same network, its recurrent layers open; it shares all values with `model`.

    `model` itself where it has no recurrent layer.
    """
    layers = {name: layer for name, layer in model.named_modules() if is_recurrent(layer)}
    if not layers:
        return model
    open_layers = {name: _opened(layer) for name, layer in layers.items()}
    if "" in open_layers:
        return open_layers[""]
    shared = {id(value): value for value in (*model.parameters(), *model.buffers())}
    network = copy.deepcopy(model, shared)
    replace_(network, open_layers)
    return network


def _opened(layer: nn.RNNBase) -> Opened:
    linears = {}
    for name, shape in weights_of(layer).items():
        linear = nn.Linear(shape.in_features, shape.out_features, bias=False, device="meta")
        linear.weight = layer.get_parameter(name)
        linears[name] = linear
    return copied(layer, Opened, linears, sharing=True)


@dataclass(frozen=True, slots=True)
class Use:
    """How a network uses a recurrent layer: calls in one pass, and the input of the first."""

    calls: int
    inputs: Tensor  # of a packed sequence, the padded one


def uses(model: nn.Module, example: Tensor) -> dict[str, Use]:
    """The recurrent layers that a forward pass calls.

    Args:
        model: runs in eval mode.
        example: a batch (N, ...) of inputs.
    """
    found: dict[str, Use] = {}
    with evaluating(model), _watching(model, found):
        model(example)
    return found


@contextmanager
def _watching(model: nn.Module, found: dict[str, Use]) -> Iterator[None]:
    def watch(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs["input"]
            first = found.get(name) or Use(0, _padded(x, batch_first=bool(layer.batch_first)))
            found[name] = Use(first.calls + 1, first.inputs)

        return hook

    with ExitStack() as stack:
        for name, layer in model.named_modules():
            if is_recurrent(layer):
                hook = layer.register_forward_pre_hook(watch(name), with_kwargs=True)
                stack.callback(hook.remove)
        yield


def _padded(x: Tensor | PackedSequence, *, batch_first: bool) -> Tensor:
    if isinstance(x, PackedSequence):
        x, _ = pad_packed_sequence(x, batch_first=batch_first)
    return x
