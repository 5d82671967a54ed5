"""LSTM, GRU and RNN: ONNX -> aten, their weights in torch's order of gates.

ONNX has one operator for each layer, both ways in one tensor (D, ...), and keeps the ways of what
comes out on an axis of their own: (T, D, N, H), where torch has (T, N, D H).
"""

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from compress.errors import ProgramError
from compress.onnx_program.builder import dtype_setting
from compress.onnx_program.call import Call, Translation
from compress.program.arguments import Reference, Value

# Where each gate of torch's stands in ONNX: i f g o of i o f c; r z n of z r h.
GATES: Final = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
ACTIVATIONS: Final = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh")}
OPERATORS: Final = {"LSTM": "lstm.input", "GRU": "gru.input"}
WAYS: Final = {"forward": 1, "bidirectional": 2}
STATES: Final = {"LSTM": ("initial_h", "initial_c"), "GRU": ("initial_h",), "RNN": ("initial_h",)}


def _recurrent(kind: str) -> Translation:
    def translate(call: Call) -> Sequence[Reference]:
        ways = _ways(call)
        operator = OPERATORS.get(kind) or _simple(call, ways)
        _refuse_rest(call, kind, ways)
        names = STATES[kind]
        hidden = call.setting(2).shape[-1]
        own = call.weights.layer([call.node], kind.lower(), _tensors(call, kind, ways))
        states = tuple(_state(call, 5 + i, ways, hidden) for i in range(len(names)))
        initial: Value = states if kind == "LSTM" else states[0]
        outputs, *ends = call.builder.emit_several(
            operator, call.tensor(0), initial, tuple(own.values()), call.has(3), 1, 0.0, False,
            ways == 2, False,
        )  # fmt: skip
        return _with_ways(call, outputs, ways, hidden), *ends

    return translate


def _ways(call: Call) -> int:
    direction = call.attribute("direction", "forward")
    if direction not in WAYS:
        raise ProgramError(f"direction={direction!r} is not read: {', '.join(WAYS)} were wanted")
    return WAYS[direction]


def _simple(call: Call, ways: int) -> str:
    """The operator of an RNN, which its activation names."""
    activations = call.attribute("activations", ("Tanh",) * ways)
    for name in ("Tanh", "Relu"):
        if activations == (name,) * ways:
            return f"rnn_{name.lower()}.input"
    raise ProgramError(f"activations {activations[:2]} are not read: Tanh or Relu were wanted")


def _refuse_rest(call: Call, kind: str, ways: int) -> None:
    """What torch's layers have not."""
    if kind in ACTIVATIONS:
        call.refuse_unless("activations", ACTIVATIONS[kind] * ways)
    call.refuse_unless("layout", 0)
    call.refuse_unless("input_forget", 0)
    if "clip" in call.attributes:
        raise ProgramError("a clip of the gates is not read")
    if kind == "GRU" and not call.attribute("linear_before_reset", 0):
        raise ProgramError("linear_before_reset=0 is not read: torch resets after the product")
    call.refuse_input(4, "sequence_lens")
    call.refuse_input(7, "P")


def _tensors(call: Call, kind: str, ways: int) -> dict[str, Tensor]:
    """What torch's layer calls its tensors -> values, in the order in which it takes them."""
    gates = GATES[kind]
    inputs, recurrent = call.setting(1), call.setting(2)  # (D, G H, I) and (D, G H, H)
    hidden = recurrent.shape[-1]
    wanted = (ways, len(gates) * hidden)
    biases = call.setting(3) if call.has(3) else torch.zeros(ways, 2 * wanted[1])
    if (
        inputs.dim() != 3
        or inputs.shape[:2] != wanted
        or recurrent.shape != (*wanted, hidden)
        or biases.shape != (ways, 2 * wanted[1])
        or not hidden
    ):
        raise ProgramError(f"weights {list(inputs.shape)} and {list(recurrent.shape)} do not fit")
    tensors = {}
    for way, suffix in enumerate(("", "_reverse")[:ways]):
        tensors[f"weight_ih_l0{suffix}"] = _ordered(inputs[way], gates)
        tensors[f"weight_hh_l0{suffix}"] = _ordered(recurrent[way], gates)
        if call.has(3):
            first, second = biases[way].chunk(2)
            tensors[f"bias_ih_l0{suffix}"] = _ordered(first, gates)
            tensors[f"bias_hh_l0{suffix}"] = _ordered(second, gates)
    return tensors


def _ordered(values: Tensor, gates: Sequence[int]) -> Tensor:
    parts = values.chunk(len(gates))
    return torch.cat([parts[gate] for gate in gates])


def _state(call: Call, place: int, ways: int, hidden: int) -> Reference:
    """An initial state; zeros are made anew, so that a layer is seen to begin with them."""
    given = call.optional(place)
    if given is not None and not call.builder.is_zero(given):
        return given
    x = call.tensor(0)
    sizes = (ways, call.builder.length(x, 1), hidden)
    return call.emit("zeros.default", sizes, dtype=dtype_setting(call.builder.dtype(x)))


def _with_ways(call: Call, outputs: Reference, ways: int, hidden: int) -> Reference:
    if ways == 1:
        return call.emit("unsqueeze.default", outputs, 1)
    length, batch, _ = call.builder.shape(outputs)
    apart = call.emit("reshape.default", outputs, (length, batch, ways, hidden))
    return call.emit("permute.default", apart, (0, 2, 1, 3))


RECURRENT: Final[Mapping[str, Translation]] = {kind: _recurrent(kind) for kind in GATES}
