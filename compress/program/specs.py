"""Shapes and dtypes as a `.pt2` archive declares them.

Importable without torch.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

from compress.errors import ProgramError
from compress.program.document import entry, shown, union

MAX_VALUES: Final = 2**31  # of one tensor
MAX_AXES: Final = 8

# ScalarType of the schema -> the dtype's name in torch.
DTYPES: Final = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32",
    8: "float64", 12: "bool", 13: "bfloat16",
}  # fmt: skip
STRIDED: Final = 7  # of the schema's Layout


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What the author's run saw of a tensor. `symbols` has None for each axis of fixed size."""

    dtype: str
    shape: tuple[int, ...]
    symbols: tuple[str | None, ...]


def tensor_spec(name: str, meta: Any) -> TensorSpec:
    """What an object of the schema's TensorMeta says; a symbol is kept as the text it is.

    Raises:
        ProgramError: a dtype or a size that no network of real tensors has.
    """
    number = entry(meta, "dtype", int)
    if number not in DTYPES:
        raise ProgramError(
            f"{name!r} has dtype {number} of the schema; known are {', '.join(DTYPES.values())}"
        )
    if entry(meta, "layout", int) != STRIDED:
        raise ProgramError(f"{name!r} is sparse: a plain tensor was wanted")
    sizes = [_size(name, size) for size in entry(meta, "sizes", list)]
    shape = tuple(size for size, _ in sizes)
    if len(shape) > MAX_AXES or math.prod(shape) > MAX_VALUES:
        raise ProgramError(
            f"{name!r} has shape {shown(list(shape))}: at most {MAX_AXES} axes and "
            f"{MAX_VALUES} values were wanted"
        )
    return TensorSpec(DTYPES[number], shape, tuple(symbol for _, symbol in sizes))


def _size(name: str, size: Any) -> tuple[int, str | None]:
    """The size of an axis in the author's run, and the symbol that stands for it."""
    kind, content = union(size)
    symbol = None
    if kind == "as_expr":
        symbol, hint = entry(content, "expr_str", str), content.get("hint")
        if hint is None:
            raise ProgramError(f"{name!r} has a size that depends on values, which is not read")
        kind, content = union(hint)
    if kind != "as_int" or type(content) is not int or content < 0:
        raise ProgramError(f"{name!r} has size {shown(content)}, an integer from 0 on was wanted")
    return content, symbol
