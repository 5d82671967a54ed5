"""Operators that move entries about, and those that make tensors: ONNX -> aten."""

import itertools
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from compress.errors import ProgramError
from compress.onnx_program.builder import Size, dtype_setting
from compress.onnx_program.call import Call, Result, Translation
from compress.program.arguments import Reference, Value


def _reshape(call: Call) -> Result:
    x, sizes = call.tensor(0), call.sizes(1)
    if not call.attribute("allowzero", 0):
        sizes = tuple(
            call.builder.length(x, axis) if size == 0 and axis < call.builder.axes(x) else size
            for axis, size in enumerate(sizes)
        )
    return call.emit("reshape.default", x, _for_any_batch(call, x, sizes))


def _for_any_batch(call: Call, x: Reference, sizes: tuple[Size, ...]) -> tuple[Size, ...]:
    """Sizes in which the number that was the exporter's batch follows the batch.

    Where the entries of `x` depend on the batch and `sizes` do not, one of these holds it: the one
    on the axis that depends on it in `x`, if that is the number; else the first.
    """
    free = [
        axis for axis, length in enumerate(call.builder.shape(x)) if isinstance(length, Reference)
    ]
    if not free or not sizes or any(isinstance(size, Reference) for size in sizes):
        return sizes
    place = free[0] if free[0] < len(sizes) else 0
    if call.batch is not None and sizes[place] == call.batch.written:
        return (*sizes[:place], call.batch.size, *sizes[place + 1 :])
    return sizes if -1 in sizes else (-1, *sizes[1:])


def _flatten(call: Call) -> Result:
    """ONNX always makes a matrix of it."""
    x, axis = call.tensor(0), call.attribute("axis", 1)
    axes = call.builder.axes(x)
    if axis != axes:
        axis = call.counted(axis, axes)
    if axis == 1 and axes > 1:
        return call.emit("flatten.using_ints", x, 1)
    rows: Size = 1
    for length in call.builder.shape(x)[:axis]:
        rows = length if rows == 1 else call.builder.number("_operator.mul", rows, length)
    columns: Size = -1 if axis else call.builder.number("_operator.neg", 1)
    return call.emit("reshape.default", x, (rows, columns))


def _transpose(call: Call) -> Result:
    axes = tuple(range(call.builder.axes(call.tensor(0))))[::-1]
    return call.emit("permute.default", call.tensor(0), call.attribute("perm", axes))


def _squeeze(call: Call) -> Result:
    if not call.has(1):
        return call.emit("squeeze.default", call.tensor(0))
    return _kept_zero(call, call.emit("squeeze.dims", call.tensor(0), call.integers(1)))


def _unsqueeze(call: Call) -> Result:
    result = call.tensor(0)
    axes = call.integers(1)
    count = call.builder.axes(result) + len(axes)
    for axis in sorted(call.counted(axis, count) for axis in axes):
        result = call.emit("unsqueeze.default", result, axis)
    return _kept_zero(call, result)


def _concat(call: Call) -> Result:
    parts = tuple(call.tensor(place) for place in range(len(call)))
    return call.emit("cat.default", parts, call.axis())


def _split(call: Call) -> tuple[Reference, ...]:
    x, axis = call.tensor(0), call.axis(default=0)
    if call.has(1):
        sizes: tuple[Size, ...] = call.sizes(1)
    else:
        count, length = len(call.node.output), call.builder.length(x, axis)
        if not isinstance(length, int) or not 0 < count <= max(length, 1):
            raise ProgramError("an axis that is not fixed is split into equal parts")
        each = -(-length // count)
        sizes = tuple(min(each, length - i * each) for i in range(count))
    parts = call.builder.emit_several("split_with_sizes.default", x, sizes, axis)
    return tuple(_kept_zero(call, part) for part in parts)


def _slice(call: Call) -> Result:
    result = call.tensor(0)
    count = call.builder.axes(result)
    starts, ends = call.sizes(1), call.sizes(2)
    axes = call.integers(3) if call.has(3) else tuple(range(len(starts)))
    steps = call.integers(4) if call.has(4) else (1,) * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step == -1 and start == -1 and isinstance(end, int) and end < -count:
            result = call.emit("flip.default", result, (axis,))
        elif step < 1:
            raise ProgramError(f"step {step} is not read, but for a whole axis backwards")
        else:
            result = call.emit("slice.Tensor", result, axis, start, end, step)
    return _kept_zero(call, result)


def _gather(call: Call) -> Result:
    x, places, axis = call.tensor(0), call.known(1), call.axis(default=0)
    rows = call.known(0)
    if places is None:
        if rows is not None and rows.dim() == 2 and not axis and rows.is_floating_point():
            own = call.weights.layer([call.node], "embedding", {"weight": rows})
            return call.emit("embedding.default", own["weight"], call.tensor(1))
        return call.emit("index.Tensor", x, _at(axis, call.tensor(1)))
    if not places.dim():
        return call.emit("select.int", x, axis, int(places))
    length = call.builder.length(x, axis)
    if (places < 0).any():
        if not isinstance(length, int):
            raise ProgramError("it counts from the end of an axis that is not fixed")
        places = torch.where(places < 0, places + length, places)
    if places.dim() == 1:
        return call.emit("index_select.default", x, axis, call.builder.constant(places))
    return call.emit("index.Tensor", x, _at(axis, call.builder.constant(places)))


def _at(axis: int, places: Value) -> tuple[Value, ...]:
    return (*itertools.repeat(None, axis), places)


def _gather_elements(call: Call) -> Result:
    return call.emit("gather.default", call.tensor(0), call.axis(default=0), call.tensor(1))


def _gather_nd(call: Call) -> Result:
    call.refuse_unless("batch_dims", 0)
    x, places = call.tensor(0), call.setting(1)
    if not 0 < places.shape[-1] <= call.builder.axes(x):
        raise ProgramError(f"{places.shape[-1]} indices came for {call.builder.axes(x)} axes")
    each = tuple(call.builder.constant(place) for place in places.unbind(-1))
    return call.emit("index.Tensor", x, each)


def _expand(call: Call) -> Result:
    """ONNX broadcasts both ways; torch keeps an axis for which -1 is given."""
    x, sizes = call.tensor(0), call.sizes(1)
    lengths = call.builder.shape(x)
    sizes = (1,) * (len(lengths) - len(sizes)) + sizes
    lengths = (None,) * (len(sizes) - len(lengths)) + lengths  # type: ignore[assignment]
    wanted = tuple(
        -1 if length is not None and (size in (1, length) or length not in (None, 1)) else size
        for size, length in zip(sizes, lengths, strict=True)
    )
    return _kept_zero(call, call.emit("expand.default", x, wanted))


def _tile(call: Call) -> Result:
    return call.emit("repeat.default", call.tensor(0), call.sizes(1))


def _full(call: Call) -> Result:
    values: Tensor = call.attribute("value", torch.zeros(1))
    if values.numel() != 1:
        raise ProgramError("value holds more than one number")
    result = call.emit(
        "full.default", call.sizes(0), values.item(), dtype=dtype_setting(values.dtype)
    )
    return result if values.any() else call.builder.keep_zero(result)


def _range(call: Call) -> Result:
    start, end, step = (
        call.number(place) if call.known(place) is not None else call.sizes(place)[0]
        for place in range(3)
    )
    known = call.known(0)
    dtype = dtype_setting(torch.int64 if known is None else known.dtype)
    return call.emit("arange.start_step", start, end, step, dtype=dtype)


def _constant(call: Call) -> Result:
    ((name, value),) = call.attributes.items()
    if isinstance(value, Tensor):
        return call.builder.constant(value)
    if not name.startswith(("value_int", "value_float")):
        raise ProgramError(f"{name!r} is not read: numbers were wanted")
    dtype = torch.int64 if "int" in name else torch.float32
    return call.builder.constant(torch.tensor(value, dtype=dtype))


def _size(call: Call) -> Result:
    product: Size = 1
    for length in call.builder.shape(call.tensor(0)):
        product = call.builder.number("_operator.mul", product, length)
    if isinstance(product, Reference):
        raise ProgramError("a number of values that is not fixed is not read")
    return call.builder.constant(torch.tensor(product))


def _triangle(call: Call) -> Result:
    operator = "triu.default" if call.attribute("upper", 1) else "tril.default"
    return call.emit(operator, call.tensor(0), call.number(1) if call.has(1) else 0)


def _scatter(call: Call) -> Result:
    """Exporters of traces make constant masks by it; nothing in the table does it to inputs."""
    call.refuse_unless("reduction", "none")
    values, places, updates = (call.setting(place).clone() for place in range(3))
    axes = places.shape[-1]
    if places.numel() and axes > values.dim():
        raise ProgramError("there are more indices than axes")
    try:
        values[tuple(places.unbind(-1))] = updates.expand(*places.shape[:-1], *values.shape[axes:])
    except (IndexError, RuntimeError) as error:
        raise ProgramError(f"its indices do not fit: {error}") from error
    return call.builder.constant(values)


def _kept_zero(call: Call, result: Reference) -> Reference:
    """The result of an operator that moves entries about: zeros where its input is."""
    return call.builder.keep_zero(result) if call.builder.is_zero(call.tensor(0)) else result


SHAPES: Final[Mapping[str, Translation]] = {
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _full,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Range": _range,
    "Reshape": _reshape,
    "ScatterND": _scatter,
    "Size": _size,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _triangle,
    "Unsqueeze": _unsqueeze,
}
