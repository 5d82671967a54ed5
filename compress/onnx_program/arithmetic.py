"""Operators that work entry by entry, and products of matrices: ONNX -> aten."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from compress.errors import ProgramError
from compress.onnx_program.builder import dtype_setting
from compress.onnx_program.call import Call, Result, Translation
from compress.program.arguments import Reference, Value


def _unary(operator: str) -> Translation:
    return lambda call: call.emit(f"{operator}.default", call.tensor(0))


def _with(operator: str, **attributes: tuple[str, float | str]) -> Translation:
    """An activation, and ONNX's name and default of each of its settings."""

    def translate(call: Call) -> Result:
        settings = {name: call.attribute(*known) for name, known in attributes.items()}
        return call.emit(operator, call.tensor(0), **settings)

    return translate


def _with_number(call: Call, operator: str, first: int = 0, second: int = 1) -> Reference:
    """An operator of two inputs; the second is a number where it is constant and one entry."""
    x, values = call.tensor(first), call.known(second)
    is_number = (
        values is not None
        and values.numel() == 1
        and values.dim() <= call.builder.axes(x)
        and values.dtype == call.builder.dtype(x) != torch.bool
    )
    if values is None or not is_number:
        return call.emit(f"{operator}.Tensor", x, call.tensor(second))
    return call.emit(f"{operator}.Scalar", x, values.item())


def _binary(operator: str) -> Translation:
    return lambda call: _with_number(call, operator)


def _commutative(operator: str) -> Translation:
    def translate(call: Call) -> Result:
        places = (0, 1) if call.known(0) is None else (1, 0)
        return _with_number(call, operator, *places)

    return translate


def _logical(operator: str) -> Translation:
    return lambda call: call.emit(f"{operator}.default", call.tensor(0), call.tensor(1))


def _folded(operator: str) -> Translation:
    """An operator of any number of inputs."""

    def translate(call: Call) -> Result:
        result = call.tensor(0)
        for place in range(1, len(call)):
            result = call.emit(operator, result, call.tensor(place))
        return result

    return translate


def _divide(call: Call) -> Result:
    """Of integers, ONNX keeps the whole part."""
    if call.builder.dtype(call.tensor(0)).is_floating_point:
        return _with_number(call, "div")
    first, second = call.tensor(0), call.tensor(1)
    return call.emit("div.Tensor_mode", first, second, rounding_mode="trunc")


def _remainder(call: Call) -> Result:
    if call.attribute("fmod", 0):
        raise ProgramError("fmod=1 is not read: the remainder has the sign of the divisor")
    return call.emit("remainder.Tensor", call.tensor(0), call.tensor(1))


def _power(call: Call) -> Result:
    values = call.known(1)
    if values is None or values.numel() != 1 or values.dim() > call.builder.axes(call.tensor(0)):
        return _cast_back(call, call.emit("pow.Tensor_Tensor", call.tensor(0), call.tensor(1)))
    return _cast_back(call, call.emit("pow.Tensor_Scalar", call.tensor(0), values.item()))


def _cast_back(call: Call, result: Reference) -> Reference:
    dtype = call.builder.dtype(call.tensor(0))
    if call.builder.dtype(result) == dtype:
        return result
    return call.emit("to.dtype", result, dtype_setting(dtype))


def _clip(call: Call) -> Result:
    bounds: list[Value] = [
        call.number(place) if call.known(place) is not None else call.optional(place)
        for place in (1, 2)
    ]
    if any(isinstance(bound, Reference) for bound in bounds):
        bounds = [call.optional(place) for place in (1, 2)]
        return call.emit("clamp.Tensor", call.tensor(0), *bounds)
    if bounds == [0, 6]:
        return call.emit("hardtanh.default", call.tensor(0), *bounds)
    if bounds == [None, None]:
        return call.tensor(0)
    return call.emit("clamp.default", call.tensor(0), *bounds)


def _hard_sigmoid(call: Call) -> Result:
    slope, shift = call.attribute("alpha", 0.2), call.attribute("beta", 0.5)
    if abs(slope - 1 / 6) < 1e-6 and shift == 0.5:
        return call.emit("hardsigmoid.default", call.tensor(0))
    line = call.emit("add.Scalar", call.emit("mul.Scalar", call.tensor(0), slope), shift)
    return call.emit("clamp.default", line, 0, 1)


def _elu(call: Call) -> Result:
    return call.emit("elu.default", call.tensor(0), call.attribute("alpha", 1.0))


def _selu(call: Call) -> Result:
    alpha, gamma = call.attribute("alpha", 1.67326319), call.attribute("gamma", 1.05070102)
    return call.emit("elu.default", call.tensor(0), alpha, gamma)


def _softsign(call: Call) -> Result:
    below = call.emit("add.Scalar", call.emit("abs.default", call.tensor(0)), 1)
    return call.emit("div.Tensor", call.tensor(0), below)


def _where(call: Call) -> Result:
    return call.emit("where.self", *(call.tensor(place) for place in range(3)))


def _cast(call: Call) -> Result:
    return call.emit("to.dtype", call.tensor(0), call.dtype("to"))


def _einsum(call: Call) -> Result:
    operands = tuple(call.tensor(place) for place in range(len(call)))
    return call.emit("einsum.default", call.attribute("equation", ""), operands)


def _cumulative_sum(call: Call) -> Result:
    call.refuse_unless("exclusive", 0)
    call.refuse_unless("reverse", 0)
    return call.emit("cumsum.default", call.tensor(0), call.integers(1)[0])


def _dropout(call: Call) -> Result:
    if call.has(2) and call.number(2):
        raise ProgramError("it is in train mode: export the network after model.eval()")
    return call.tensor(0)


UNARY: Final = {
    "Abs": "abs", "Ceil": "ceil", "Cos": "cos", "Erf": "erf", "Exp": "exp", "Floor": "floor",
    "HardSwish": "hardswish", "IsNaN": "isnan", "Log": "log", "Mish": "mish", "Neg": "neg",
    "Not": "logical_not", "Reciprocal": "reciprocal", "Relu": "relu", "Round": "round",
    "Sigmoid": "sigmoid", "Sign": "sign", "Sin": "sin", "Softplus": "softplus", "Sqrt": "sqrt",
    "Tan": "tan", "Tanh": "tanh",
}  # fmt: skip
BINARY: Final = {
    "Equal": "eq", "Greater": "gt", "GreaterOrEqual": "ge", "Less": "lt", "LessOrEqual": "le",
    "Sub": "sub",
}  # fmt: skip

ARITHMETIC: Final[Mapping[str, Callable[[Call], Any]]] = {
    **{name: _unary(operator) for name, operator in UNARY.items()},
    **{name: _binary(operator) for name, operator in BINARY.items()},
    "Add": _commutative("add"),
    "And": _logical("logical_and"),
    "Cast": _cast,
    "Celu": _with("celu.default", alpha=("alpha", 1.0)),
    "Clip": _clip,
    "CumSum": _cumulative_sum,
    "Div": _divide,
    "Dropout": _dropout,
    "Einsum": _einsum,
    "Elu": _elu,
    "Gelu": _with("gelu.default", approximate=("approximate", "none")),
    "HardSigmoid": _hard_sigmoid,
    "Identity": lambda call: call.tensor(0),
    "LeakyRelu": _with("leaky_relu.default", negative_slope=("alpha", 0.01)),
    "Max": _folded("maximum.default"),
    "Min": _folded("minimum.default"),
    "Mod": _remainder,
    "Mul": _commutative("mul"),
    "Or": _logical("logical_or"),
    "Pow": _power,
    "Selu": _selu,
    "Softsign": _softsign,
    "Sum": _folded("add.Tensor"),
    "Where": _where,
}
