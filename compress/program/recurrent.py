"""Shapes of what recurrent operators take: torch compares few of them, and reads past the end."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Final

import torch

# With the gates that their weights hold.
GATES: Final[Mapping[Any, int]] = {
    torch.ops.aten.lstm.input: 4,
    torch.ops.aten.gru.input: 3,
    torch.ops.aten.rnn_tanh.input: 1,
    torch.ops.aten.rnn_relu.input: 1,
}

Shape = tuple[int, ...]


def check_shapes(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse a call of a recurrent operator with tensors of other shapes or dtypes than it reads.

    Args:
        target: any operator, or the name of a layer.
        args: of the call.
        kwargs: likewise, by the names of the operator's schema.

    Raises:
        ValueError: a tensor is not what the others ask for.
    """
    if target not in GATES:
        return
    names = [argument.name for argument in target._schema.arguments]
    call = dict(zip(names, args, strict=False)) | dict(kwargs)
    x, params = call["input"], call["params"]
    states = call["hx"] if isinstance(call["hx"], list) else [call["hx"]]
    found = [tuple(tensor.shape) for tensor in (*states, *params)]
    wanted = list(_wanted(GATES[target], call, states))
    if found != wanted:
        raise ValueError(f"states and weights of shapes {found} came, {wanted} were wanted")
    if len(dtypes := {tensor.dtype for tensor in (x, *states, *params)}) > 1:
        raise ValueError(f"one dtype was wanted, {sorted(map(str, dtypes))} came")


def _wanted(gates: int, call: Mapping[str, Any], states: Sequence[Any]) -> Iterator[Shape]:
    """Of each state, then of each parameter; an LSTM may project its output to another width."""
    x, ways = call["input"], 1 + call["bidirectional"]
    hidden, width = call["params"][0].shape[0] // gates, states[0].shape[-1]
    rows = gates * hidden
    batch = x.shape[0 if call["batch_first"] else 1]
    yield from ((call["num_layers"] * ways, batch, size) for size in (width, hidden)[: len(states)])
    for layer, _ in product(range(call["num_layers"]), range(ways)):
        yield from ((rows, x.shape[-1] if layer == 0 else ways * width), (rows, width))
        if call["has_biases"]:
            yield from ((rows,), (rows,))
        if width != hidden:
            yield width, hidden
