"""Operators with weights: ONNX -> aten, with the weights as torch's layers hold them."""

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from compress.errors import ProgramError
from compress.onnx_program.call import Call, Result, Translation
from compress.onnx_program.images import even, window
from compress.program.arguments import Reference, Value


def owned(call: Call, kind: str, places: Mapping[str, int]) -> dict[str, Value]:
    """The inputs at these places by torch's names: of a layer where all of them are constant."""
    given = {name: place for name, place in places.items() if call.has(place)}
    values = {name: call.known(place) for name, place in given.items()}
    tensors = {name: tensor for name, tensor in values.items() if tensor is not None}
    if len(tensors) == len(given):
        return dict(call.weights.layer([call.node], kind, tensors))
    return {name: call.tensor(place) for name, place in given.items()}


def _convolution(call: Call) -> Result:
    space, groups = call.builder.axes(call.tensor(1)) - 2, call.attribute("group", 1)
    strides, dilations, pads = _window(call, space)
    x, padding = even(call, call.tensor(0), pads)
    own = owned(call, "conv", {"weight": 1, "bias": 2})
    return call.emit(
        f"conv{space}d.default", x, own["weight"], own.get("bias"), strides, padding, dilations,
        groups,
    )  # fmt: skip


def _transposed_convolution(call: Call) -> Result:
    space, groups = call.builder.axes(call.tensor(1)) - 2, call.attribute("group", 1)
    strides, dilations, pads = _window(call, space)
    if "output_shape" in call.attributes or tuple(pads[:space]) != tuple(pads[space:]):
        raise ProgramError("an output shape, or pads that differ between the ends, are not read")
    own = owned(call, "conv_transpose", {"weight": 1, "bias": 2})
    operator = "conv_transpose1d.default" if space == 1 else f"conv_transpose{space}d.input"
    return call.emit(
        operator, call.tensor(0), own["weight"], own.get("bias"), strides, tuple(pads[:space]),
        call.attribute("output_padding", (0,) * space), groups, dilations,
    )  # fmt: skip


def _window(call: Call, space: int) -> tuple[tuple[int, ...], ...]:
    if space not in (1, 2, 3):
        raise ProgramError(f"a kernel of {space} axes of space came, 1 to 3 were wanted")
    strides, dilations, pads = window(call, space)
    return tuple(strides), tuple(dilations), tuple(pads)


def _gemm(call: Call) -> Result:
    """alpha A B + beta C: a Linear where B and C are constant, its factors put into them."""
    alpha, beta = call.attribute("alpha", 1.0), call.attribute("beta", 1.0)
    x, weight, bias = call.tensor(0), call.known(1), call.known(2)
    if call.attribute("transA", 0):
        x = call.emit("t.default", x)
    transposed = call.attribute("transB", 0)
    if weight is not None and weight.dim() == 2 and (bias is not None or not call.has(2)):
        weight = weight if transposed else weight.T
        if bias is None or bias.numel() in (1, len(weight)):
            weight = weight if alpha == 1 else weight * alpha
            if bias is not None:
                bias = (bias if beta == 1 else bias * beta).flatten().expand(len(weight))
            return _linear(call, x, weight, bias)
    second = call.emit("t.default", call.tensor(1)) if transposed else call.tensor(1)
    product = call.emit("matmul.default", x, second)
    product = product if alpha == 1 else call.emit("mul.Scalar", product, alpha)
    if not call.has(2):
        return product
    added = call.tensor(2) if beta == 1 else call.emit("mul.Scalar", call.tensor(2), beta)
    return call.emit("add.Tensor", product, added)


def _linear(call: Call, x: Reference, weight: Tensor, bias: Tensor | None) -> Reference:
    """`x` (..., I) times `weight` (O, I), plus `bias` (O)."""
    nodes = [call.node] if call.bias is None else [call.node, call.bias.node]
    tensors = {"weight": weight} | ({} if bias is None else {"bias": bias})
    own = call.weights.layer(nodes, "linear", tensors)
    return call.emit("linear.default", x, own["weight"], own.get("bias"))


def _matmul(call: Call) -> Result:
    weight = call.known(1)
    if weight is None or weight.dim() != 2 or not call.builder.axes(call.tensor(0)):
        return call.emit("matmul.default", call.tensor(0), call.tensor(1))
    return _linear(call, call.tensor(0), weight.T, None if call.bias is None else call.bias.values)


def _batch_norm(call: Call) -> Result:
    call.refuse_unless("training_mode", 0)
    own = owned(call, "norm", {"weight": 1, "bias": 2, "running_mean": 3, "running_var": 4})
    return call.emit(
        "batch_norm.default", call.tensor(0), own["weight"], own["bias"], own["running_mean"],
        own["running_var"], False, 1 - call.attribute("momentum", 0.9),
        call.attribute("epsilon", 1e-5), True,
    )  # fmt: skip


def _instance_norm(call: Call) -> Result:
    own = owned(call, "norm", {"weight": 1, "bias": 2})
    return call.emit(
        "instance_norm.default", call.tensor(0), own["weight"], own["bias"], None, None, True, 0.1,
        call.attribute("epsilon", 1e-5), True,
    )  # fmt: skip


def _layer_norm(call: Call) -> Result:
    call.refuse_unless("stash_type", 1)
    if len(call.node.output) > 1 and any(call.node.output[1:]):
        raise ProgramError("the statistics of a norm are not read")
    x, axis = call.tensor(0), call.axis()
    own = owned(call, "norm", {"weight": 1, "bias": 2})
    return call.emit(
        "layer_norm.default", x, call.builder.shape(x)[axis:], own["weight"], own.get("bias"),
        call.attribute("epsilon", 1e-5),
    )  # fmt: skip


def _group_norm(call: Call) -> Result:
    """Until operators of version 21, a group has one scale."""
    groups, channels = call.attribute("num_groups", 0), call.builder.shape(call.tensor(0))[1]
    scale, bias = call.setting(1), call.setting(2)
    if not isinstance(channels, int) or scale.shape != (groups,) or channels % max(groups, 1):
        raise ProgramError(f"{channels} channels and scales {list(scale.shape)}: {groups} wanted")
    each = channels // groups
    tensors = {"weight": scale.repeat_interleave(each), "bias": bias.repeat_interleave(each)}
    own = call.weights.layer([call.node], "norm", tensors)
    return call.emit(
        "group_norm.default", call.tensor(0), groups, own["weight"], own["bias"],
        call.attribute("epsilon", 1e-5),
    )  # fmt: skip


def _prelu(call: Call) -> Result:
    slope = call.known(1)
    channels = None if slope is None else max(slope.shape, default=1)
    if slope is None or slope.numel() != channels or slope.shape[:1] != (channels,)[: slope.dim()]:
        return _leaky(call)
    own = call.weights.layer([call.node], "prelu", {"weight": slope.flatten()})
    return call.emit("prelu.default", call.tensor(0), own["weight"])


def _leaky(call: Call) -> Result:
    below = call.emit("clamp.default", call.tensor(0), None, 0)
    scaled = call.emit("mul.Tensor", below, call.tensor(1))
    return call.emit("add.Tensor", call.emit("relu.default", call.tensor(0)), scaled)


LAYERS: Final[Mapping[str, Translation]] = {
    "BatchNormalization": _batch_norm,
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Gemm": _gemm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "PRelu": _prelu,
}
