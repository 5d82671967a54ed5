"""Operators of the table as functions of torch, and their arguments as torch takes them."""

import operator
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from compress.errors import ProgramError
from compress.program.arguments import Setting
from compress.program.document import SHOWN
from compress.program.graph import Node
from compress.program.operators import ATEN, SIZE, TENSORS
from compress.program.specs import DTYPES

MAX_NUMBER: Final = 2**62  # of what is computed from sizes

MAX_LAYERS: Final = 1000  # of one LSTM: torch goes through them before it compares counts

MEMORY_FORMATS: Final = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
IGNORED: Final = ("layout", "pin_memory")  # their defaults are all that is read
DEVICE: Final = Setting("device")


def function_of(name: str) -> Callable[..., Any]:
    """The function that an operator of the table names."""
    if name == SIZE:
        return Tensor.size
    if name in TENSORS:
        return _overload(name)
    module, _, function = name.rpartition(".")
    return _bounded(getattr(operator if module == "_operator" else torch, function))


def argument_names(name: str) -> list[str]:
    """The arguments of an operator on tensors, in the order of its schema."""
    return [argument.name for argument in _overload(name)._schema.arguments]


def completed(node: Node) -> dict[str, Any]:
    """The arguments of a node with the schema's defaults, in its order.

    Raises:
        ProgramError: an argument that the operator does not have, or one that is missing.
    """
    if node.operator not in TENSORS:
        return dict(node.arguments)
    schema = _overload(node.operator)._schema.arguments
    if unknown := node.arguments.keys() - {argument.name for argument in schema}:
        raise ProgramError(f"there is no argument {min(unknown)[:SHOWN]!r}")
    values = {}
    for argument in schema:
        if argument.name in node.arguments:
            values[argument.name] = node.arguments[argument.name]
        elif not argument.has_default_value():
            raise ProgramError(f"argument {argument.name!r} is missing")
        else:
            default = argument.default_value
            values[argument.name] = tuple(default) if isinstance(default, list) else default
    return values


def passed(node: Node) -> tuple[list[Any], dict[str, Any]]:
    """The arguments that a node gives, by position and by name.

    What makes a tensor of nothing makes it on the device of the inputs.
    """
    if node.operator not in TENSORS:
        return list(node.arguments.values()), {}
    schema = _overload(node.operator)._schema.arguments
    given = {name: value for name, value in node.arguments.items() if name not in IGNORED}
    if "device" in {a.name for a in schema} and not any("Tensor" in str(a.type) for a in schema):
        given["device"] = DEVICE
    args: list[Any] = []
    for argument in schema:
        if argument.kwarg_only or argument.name not in given:
            break
        args.append(given.pop(argument.name))
    return args, given


def real(setting: Setting) -> Any:
    """A dtype or a memory format of torch."""
    if setting.kind == "dtype":
        return getattr(torch, DTYPES[setting.number])
    return MEMORY_FORMATS[setting.number]


def writes(node: Node) -> bool:
    """Whether the operator changes its first argument."""
    name = node.operator.removeprefix(ATEN).partition(".")[0]
    return name.endswith("_")


def objection(node: Node) -> str | None:
    """Why a node is not called where it is no layer; None where it is."""
    given = node.arguments
    draws = given.get("train") is True and (given.get("p") or given.get("dropout"))
    learns = given.get("training") is True and given.get("running_mean") is not None
    if draws or learns or given.get("dropout_p"):
        return "it is in train mode, and no layer by itself: export the network after model.eval()"
    if "num_layers" in given and given["num_layers"] not in range(1, MAX_LAYERS + 1):
        return f"{given['num_layers']} layers came, 1 to {MAX_LAYERS} were wanted"
    return None


def _overload(name: str) -> Any:
    packet, _, overload = name.removeprefix(ATEN).partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload)


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, on numbers that fit into 64 bits before and after."""

    def call(*numbers: Any) -> Any:
        result = function(*numbers)
        if type(result) is int and abs(result) > MAX_NUMBER:
            raise OverflowError(f"a size of {result.bit_length()} bits")
        return result

    return call
