"""The arguments of operators as torch takes them."""

from typing import Any, Final

from compress.errors import ProgramError
from compress.program.arguments import Setting
from compress.program.document import SHOWN
from compress.program.graph import Node
from compress.program.operators import OPERATORS, TENSORS
from compress.program.specs import DTYPES
from compress.program.steps import function_of

MAX_LAYERS: Final = 1000  # of one LSTM: torch goes through them before it compares counts

MEMORY_FORMATS: Final = {
    1: "contiguous_format",
    2: "channels_last",
    3: "channels_last_3d",
    4: "preserve_format",
}
IGNORED: Final = ("layout", "pin_memory")  # their defaults are all that is read
DEVICE: Final = Setting("device")


def completed(node: Node) -> dict[str, Any]:
    """The arguments of a node with the schema's defaults, in its order.

    Raises:
        ProgramError: an argument that the operator does not have, or one that is missing.
    """
    if node.operator not in TENSORS:
        return dict(node.arguments)
    schema = _schema(node.operator)
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
    schema = _schema(node.operator)
    given = {name: value for name, value in node.arguments.items() if name not in IGNORED}
    if "device" in {a.name for a in schema} and not any("Tensor" in str(a.type) for a in schema):
        given["device"] = DEVICE
    args: list[Any] = []
    for argument in schema:
        if argument.kwarg_only or argument.name not in given:
            break
        args.append(given.pop(argument.name))
    return args, given


def written(setting: Setting) -> dict[str, str]:
    """A dtype or a memory format as the document of a program has it."""
    names = DTYPES if setting.kind == "dtype" else MEMORY_FORMATS
    return {setting.kind: names[setting.number]}


def writes(node: Node) -> bool:
    """Whether the operator changes its first argument."""
    overload = node.operator.rpartition(".")[0]
    return overload.endswith("_")


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


def _schema(name: str) -> Any:
    return function_of(name, OPERATORS)._schema.arguments  # type: ignore[attr-defined]
