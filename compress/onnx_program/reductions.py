"""Operators that reduce axes, or order along one: ONNX -> aten."""

from collections.abc import Mapping
from typing import Final

from compress.errors import ProgramError
from compress.onnx_program.call import Call, Result, Translation
from compress.program.arguments import Reference


def _axes(call: Call) -> tuple[int, ...] | None:
    """The axes to reduce: an attribute at first, an input later; none at all for all of them.

    Returns:
        None where nothing is to be reduced.
    """
    axes = call.integers(1) if call.has(1) else call.attribute("axes", ())
    if not axes and call.attribute("noop_with_empty_axes", 0):
        return None
    return tuple(axes) or tuple(range(call.builder.axes(call.tensor(0))))


def _reduce(operator: str) -> Translation:
    """A reduction over several axes at once."""

    def translate(call: Call) -> Result:
        x, axes, kept = call.tensor(0), _axes(call), bool(call.attribute("keepdims", 1))
        return x if axes is None or not call.builder.axes(x) else call.emit(operator, x, axes, kept)

    return translate


def _norm(order: int) -> Translation:
    def translate(call: Call) -> Result:
        x, axes, kept = call.tensor(0), _axes(call), bool(call.attribute("keepdims", 1))
        if axes is None:
            raise ProgramError("it reduces no axis")
        return call.emit("linalg_vector_norm.default", x, order, axes, kept)

    return translate


def _sum_of_squares(call: Call) -> Result:
    axes, kept = _axes(call), bool(call.attribute("keepdims", 1))
    return call.emit("sum.dim_IntList", call.emit("square.default", call.tensor(0)), axes, kept)


def _product(call: Call) -> Result:
    result, axes = call.tensor(0), _axes(call) or ()
    count, kept = call.builder.axes(result), bool(call.attribute("keepdims", 1))
    for axis in sorted((call.counted(axis, count) for axis in axes), reverse=True):
        result = call.emit("prod.dim_int", result, axis, kept)
    return result


def _extreme_place(operator: str) -> Translation:
    def translate(call: Call) -> Result:
        call.refuse_unless("select_last_index", 0)
        axis, kept = call.axis(default=0), bool(call.attribute("keepdims", 1))
        return call.emit(operator, call.tensor(0), axis, kept)

    return translate


def _top(call: Call) -> tuple[Reference, ...]:
    largest, ordered = call.attribute("largest", 1), call.attribute("sorted", 1)
    (count,) = call.sizes(1)
    return call.builder.emit_several(
        "topk.default", call.tensor(0), count, call.axis(), bool(largest), bool(ordered)
    )


def _softmax(operator: str) -> Translation:
    return lambda call: call.emit(operator, call.tensor(0), call.axis())


REDUCTIONS: Final[Mapping[str, Translation]] = {
    "ArgMax": _extreme_place("argmax.default"),
    "ArgMin": _extreme_place("argmin.default"),
    "LogSoftmax": _softmax("log_softmax.int"),
    "ReduceL1": _norm(1),
    "ReduceL2": _norm(2),
    "ReduceLogSumExp": _reduce("logsumexp.default"),
    "ReduceMax": _reduce("amax.default"),
    "ReduceMean": _reduce("mean.dim"),
    "ReduceMin": _reduce("amin.default"),
    "ReduceProd": _product,
    "ReduceSum": _reduce("sum.dim_IntList"),
    "ReduceSumSquare": _sum_of_squares,
    "Softmax": _softmax("softmax.int"),
    "TopK": _top,
}
