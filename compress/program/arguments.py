"""The arguments of a node, by the kinds that a `.pt2` archive tells apart.

Importable without torch.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from compress.errors import ProgramError
from compress.program.document import SHOWN, entry, shown, union
from compress.program.specs import DTYPES, STRIDED

# What JSON has for a plain argument; what the entries of a list are.
PLAIN: Final[Mapping[str, tuple[type, ...]]] = {
    "as_bool": (bool,),
    "as_float": (float, int),
    "as_int": (int,),
    "as_string": (str,),
}
LISTS: Final = {
    "as_bools": "as_bool",
    "as_floats": "as_float",
    "as_ints": "as_int",
    "as_optional_tensors": "as_optional_tensor",
    "as_sym_bools": "as_sym_bool",
    "as_sym_floats": "as_sym_float",
    "as_sym_ints": "as_sym_int",
    "as_tensors": "as_tensor",
}
# Which numbers of the schema stand for a setting that is read.
SETTINGS: Final = {
    "as_layout": (STRIDED,),
    "as_memory_format": (1, 2, 3, 4),
    "as_scalar_type": tuple(DTYPES),
}
INFINITIES: Final = {"Infinity": math.inf, "-Infinity": -math.inf}

Kind = Literal["tensor", "number"]


@dataclass(frozen=True, slots=True)
class Reference:
    """The result of an earlier node, an input, or a tensor of the network, by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Setting:
    """A dtype, a memory format, or a device, which is always that of the inputs."""

    kind: Literal["dtype", "memory_format", "device"]
    number: int = 0


Value = None | bool | int | float | str | Reference | Setting | tuple["Value", ...]
Use = Callable[[str, Kind], Reference]


def read_argument(kind: str, content: Any, use: Use) -> Value:
    """An argument.

    Args:
        kind: of the schema's Argument.
        content: as JSON has it.
        use: refers to a value by its name, or raises where there is none of the kind.

    Raises:
        ProgramError: it is of a kind that is not read, or malformed.
    """
    if kind == "as_none":
        return None
    if kind == "as_device":
        return Setting("device")
    if kind in SETTINGS:
        return _setting(kind, content)
    if kind in LISTS:
        if type(content) is not list:
            raise ProgramError(f"{kind} is {shown(content)}, a list was wanted")
        return tuple(_single(LISTS[kind], item, use) for item in content)
    return _single(kind, content, use)


def references(value: Value | Mapping[str, Value]) -> Iterator[str]:
    """The names that an argument refers to, or all arguments of a node."""
    if isinstance(value, Reference):
        yield value.name
    elif isinstance(value, tuple | Mapping):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from references(item)


def _single(kind: str, content: Any, use: Use) -> Value:
    """An argument that is no list, or an entry of one."""
    if kind == "as_optional_tensor":
        kind, content = union(content)
        if kind == "as_none":
            return None
    if kind == "as_tensor":
        return use(entry(content, "name", str), "tensor")
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        kind, content = union(content)
        if kind == "as_name" and type(content) is str:
            return use(content, "number")
    if kind == "as_float" and type(content) is str and content in INFINITIES:
        return INFINITIES[content]
    if kind not in PLAIN or type(content) not in PLAIN[kind]:
        raise ProgramError(f"an argument is {shown(content)} of kind {kind[:SHOWN]!r}: not read")
    return content


def _setting(kind: str, content: Any) -> Setting | None:
    if type(content) is not int or content not in SETTINGS[kind]:
        raise ProgramError(f"an argument is {shown(content)} of kind {kind!r}: not read")
    if kind == "as_layout":
        return None  # plain, as it is where nothing is said
    return Setting("dtype" if kind == "as_scalar_type" else "memory_format", content)
