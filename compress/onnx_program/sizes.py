"""Operators on sizes: what exporters compute from `Shape` to tell `Reshape` where to go.

Values of at most one axis whose entries are integers, or numbers that the graph computes. No tensor
is made of them, so that the network takes batches of any size and still knows what is fixed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import torch

from compress.errors import ProgramError
from compress.onnx_program.builder import Size, dtype_setting
from compress.onnx_program.call import Call, Result, Sizes
from compress.program.arguments import Reference

INTEGERS: Final = (dtype_setting(torch.int64), dtype_setting(torch.int32))

T = TypeVar("T")


def settled(call: Call, sizes: Sizes) -> Result:
    """Sizes as what a node returns: a constant, unless the graph computes one of them."""
    if any(isinstance(entry, Reference) for entry in sizes.entries):
        return sizes
    values = torch.tensor(sizes.entries, dtype=torch.int64)
    return call.builder.constant(values[0] if sizes.is_scalar else values)


def are_sizes(call: Call) -> bool:
    """Whether a node is to be computed on sizes: one of its inputs is, and the rest can be."""
    return any(isinstance(value, Sizes) for value in call.inputs) and all(
        value is None or isinstance(value, Sizes) or _is_short(call, value) for value in call.inputs
    )


def _is_short(call: Call, reference: Reference) -> bool:
    values = call.builder.known(reference)
    return values is not None and values.dim() < 2 and not values.is_floating_point()


def _sizes(call: Call, place: int) -> Sizes:
    value = call.inputs[place]
    if isinstance(value, Sizes):
        return value
    return Sizes(call.integers(place), is_scalar=not call.setting(place).dim())


def _shape(call: Call) -> Result:
    value = call.inputs[0]
    if isinstance(value, Sizes):
        shape: tuple[Size, ...] = () if value.is_scalar else (len(value.entries),)
    else:
        shape = call.builder.shape(call.tensor(0))
    start, end = call.attribute("start", 0), call.attribute("end", len(shape))
    return settled(call, Sizes(shape[slice(start, end)]))


def _same(call: Call) -> Result:
    return _sizes(call, 0)


def _cast(call: Call) -> Result:
    dtype = call.dtype("to")
    if dtype in INTEGERS:
        return _sizes(call, 0)
    return call.emit("to.dtype", call.tensor(0), dtype)


def _gather(call: Call) -> Result:
    entries, places = _sizes(call, 0).entries, call.setting(1)
    return Sizes(tuple(entries[place] for place in call.integers(1)), is_scalar=not places.dim())


def _concat(call: Call) -> Result:
    parts = (_sizes(call, place).entries for place in range(len(call)))
    return Sizes(tuple(entry for part in parts for entry in part))


def _vector(call: Call) -> Result:
    return Sizes(_sizes(call, 0).entries)


def _scalar(call: Call) -> Result:
    (entry,) = _sizes(call, 0).entries
    return Sizes((entry,), is_scalar=True)


def _reshape(call: Call) -> Result:
    return _vector(call) if call.integers(1) else _scalar(call)


def _slice(call: Call) -> Result:
    (start,), (end,) = call.integers(1), call.integers(2)
    (step,) = call.integers(4) if call.has(4) else (1,)
    return Sizes(_sizes(call, 0).entries[slice(start, end, step)])


def _product(call: Call) -> Result:
    product: Size = 1
    for entry in _sizes(call, 0).entries:
        product = entry if product == 1 else call.builder.number("_operator.mul", product, entry)
    return Sizes((product,), is_scalar=not call.attribute("keepdims", 1))


def _arithmetic(operator: str) -> Callable[[Call], Result]:
    def translate(call: Call) -> Result:
        first, second = _sizes(call, 0), _sizes(call, 1)
        pairs = _paired(first.entries, second.entries)
        return Sizes(
            tuple(call.builder.number(operator, a, b) for a, b in pairs),
            is_scalar=first.is_scalar and second.is_scalar,
        )

    return translate


def _paired(first: Sequence[T], second: Sequence[Size]) -> list[tuple[T, Size]]:
    """Entries of two vectors side by side; one entry stands beside every other."""
    length = max(len(first), len(second))
    if not {len(first), len(second)} <= {1, length}:
        raise ProgramError(f"{len(first)} sizes meet {len(second)}")
    return list(
        zip([*first] * (length // len(first)), [*second] * (length // len(second)), strict=True)
    )


def _equal(call: Call) -> Result:
    """Sizes are compared to see which are -1, which no length is."""
    pairs = _paired(_sizes(call, 0).entries, _sizes(call, 1).entries)
    return call.builder.constant(torch.tensor([_is_equal(a, b) for a, b in pairs]))


def _is_equal(first: Size, second: Size) -> bool:
    computed = isinstance(first, Reference), isinstance(second, Reference)
    if any(computed) and first != second:
        known = second if computed[0] else first
        if isinstance(known, Reference) or known > 0:
            raise ProgramError("a path that depends on the batch is not read")
    return first == second


def _where(call: Call) -> Result:
    chosen: list[bool] = call.setting(0).flatten().tolist()
    pairs = _paired(_sizes(call, 1).entries, _sizes(call, 2).entries)
    if len(pairs) != len(chosen):
        raise ProgramError(f"{len(chosen)} choices came for {len(pairs)} sizes")
    picked = zip(chosen, pairs, strict=True)
    return Sizes(tuple(a if choice else b for choice, (a, b) in picked))


ON_SIZES: Final[Mapping[str, Callable[[Call], Result]]] = {
    "Add": _arithmetic("_operator.add"),
    "Cast": _cast,
    "Concat": _concat,
    "Div": _arithmetic("_operator.floordiv"),  # sizes are not negative
    "Equal": _equal,
    "Gather": _gather,
    "Identity": _same,
    "Max": _arithmetic("torch.sym_max"),
    "Min": _arithmetic("torch.sym_min"),
    "Mod": _arithmetic("_operator.mod"),
    "Mul": _arithmetic("_operator.mul"),
    "ReduceProd": _product,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Squeeze": _scalar,
    "Sub": _arithmetic("_operator.sub"),
    "Unsqueeze": _vector,
    "Where": _where,
}
