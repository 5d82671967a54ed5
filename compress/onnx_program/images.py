"""Pooling, padding and scaling, over one to three axes of space: ONNX -> aten."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from compress.errors import ProgramError
from compress.onnx_program.builder import Size
from compress.onnx_program.call import Call, Result, Translation
from compress.program.arguments import Reference

PADDING: Final = {"edge": "replicate", "reflect": "reflect", "wrap": "circular"}
# Modes of Resize by ONNX's names of mode and of how places are counted, and torch's operators for
# one, two and three axes of space.
NEAREST: Final = ("upsample_nearest1d.vec", "upsample_nearest2d.vec", "upsample_nearest3d.vec")
LINEAR: Final = ("upsample_linear1d.vec", "upsample_bilinear2d.vec", "upsample_trilinear3d.vec")
CUBIC: Final = (None, "upsample_bicubic2d.vec", None)
HALF_PIXELS: Final = ("half_pixel", "pytorch_half_pixel")  # apart where one pixel is left
TORCH_CUBIC: Final = -0.75


def window(call: Call, axes: int) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """Strides, dilations and pads of a window over `axes` axes: pads of all starts, then ends.

    Raises:
        ProgramError: pads that depend on the size of the input.
    """
    auto = call.attribute("auto_pad", "NOTSET")
    if auto not in ("NOTSET", "VALID"):
        raise ProgramError(f"auto_pad={auto} is not read: give the pads as numbers")
    ones = (1,) * axes
    pads = call.attribute("pads", (0,) * (2 * axes)) if auto == "NOTSET" else (0,) * (2 * axes)
    strides, dilations = call.attribute("strides", ones), call.attribute("dilations", ones)
    if len(pads) != 2 * axes or len(strides) != axes or len(dilations) != axes:
        raise ProgramError(f"strides, dilations or pads are not those of {axes} axes")
    return strides, dilations, pads


def even(
    call: Call, x: Reference, pads: Sequence[int], value: float = 0.0
) -> tuple[Reference, tuple[int, ...]]:
    """`x` and the pads at both ends of each axis: put around `x` first where the ends differ."""
    axes = len(pads) // 2
    if tuple(pads[:axes]) == tuple(pads[axes:]):
        return x, tuple(pads[:axes])
    return call.emit("constant_pad_nd.default", x, backwards(pads), value), (0,) * axes


def backwards(pads: Sequence[Size]) -> tuple[Size, ...]:
    """Pads as torch has them: start and end of the last axis, then of the one before it."""
    axes = len(pads) // 2
    return tuple(pads[end] for axis in reversed(range(axes)) for end in (axis, axes + axis))


def _max_pool(call: Call) -> Result:
    if len(call.node.output) > 1 and call.node.output[1]:
        raise ProgramError("the places of the largest values are not read")
    call.refuse_unless("storage_order", 0)
    size = call.attribute("kernel_shape", ())
    strides, dilations, pads = window(call, len(size))
    x, padding = even(call, call.tensor(0), pads, -math.inf)
    ceil = bool(call.attribute("ceil_mode", 0))
    operator = f"max_pool{_space(call)}d.default"
    return call.emit(operator, x, size, strides, padding, dilations, ceil)


def _average_pool(call: Call) -> Result:
    size = call.attribute("kernel_shape", ())
    strides, dilations, pads = window(call, len(size))
    counted = bool(call.attribute("count_include_pad", 0))
    if any(dilation != 1 for dilation in dilations):
        raise ProgramError("dilations of an average are not read")
    x, padding = call.tensor(0), tuple(pads[: len(size)])
    if padding != tuple(pads[len(size) :]) and not counted:
        raise ProgramError("pads that differ between the ends are read if they are counted alone")
    x, padding = even(call, x, pads)
    ceil = bool(call.attribute("ceil_mode", 0))
    operator = f"avg_pool{_space(call)}d.default"
    return call.emit(operator, x, size, strides, padding, ceil, counted)


def _global_pool(kind: str) -> Translation:
    def translate(call: Call) -> Result:
        space = tuple(range(2, 2 + _space(call)))
        return call.emit(kind, call.tensor(0), space, True)

    return translate


def _space(call: Call) -> int:
    """The axes of space of the first input."""
    axes = call.builder.axes(call.tensor(0)) - 2
    if axes not in (1, 2, 3):
        raise ProgramError(f"an input of {axes + 2} axes came, 3 to 5 were wanted")
    return axes


def _pad(call: Call) -> Result:
    x, mode = call.tensor(0), call.attribute("mode", "constant")
    axes, given = call.builder.axes(x), call.sizes(1)
    if call.has(3):
        listed = [call.counted(axis, axes) for axis in call.integers(3)]
        pads: list[Size] = [0] * (2 * axes)
        for place, axis in enumerate(listed):
            pads[axis], pads[axes + axis] = given[place], given[len(listed) + place]
    else:
        pads = list(given)
    if len(pads) != 2 * axes:
        raise ProgramError(f"{len(pads)} pads came, {2 * axes} were wanted")
    if mode == "constant":
        value = call.number(2) if call.has(2) else 0.0
        return call.emit("constant_pad_nd.default", x, backwards(pads), value)
    if mode not in PADDING:
        raise ProgramError(f"mode={mode!r} is not read")
    if any(pads[:2]) or any(pads[axes : axes + 2]):
        raise ProgramError("batch and channels are padded by their own values")
    return call.emit("pad.default", x, backwards(pads)[: 2 * (axes - 2)], PADDING[mode])


def _resize(call: Call) -> Result:
    call.refuse_unless("antialias", 0)
    call.refuse_unless("exclude_outside", 0)
    call.refuse_unless("keep_aspect_ratio_policy", "stretch")
    x, space = call.tensor(0), _space(call)
    sizes, scales = _target(call, space)
    mode = call.attribute("mode", "nearest")
    places = call.attribute("coordinate_transformation_mode", "half_pixel")
    if mode == "nearest":
        nearest = call.attribute("nearest_mode", "round_prefer_floor")
        if (places, nearest) != ("asymmetric", "floor"):
            raise ProgramError(f"nearest pixels by {places} and {nearest} are not read")
        return call.emit(NEAREST[space - 1], x, sizes, scales)
    operator = {"linear": LINEAR, "cubic": CUBIC}.get(mode, (None,) * 3)[space - 1]
    if operator is None or places not in (*HALF_PIXELS, "align_corners"):
        raise ProgramError(f"mode={mode!r} with {places} is not read for {space} axes")
    if mode == "cubic" and call.attribute("cubic_coeff_a", TORCH_CUBIC) != TORCH_CUBIC:
        raise ProgramError(f"cubic_coeff_a is not {TORCH_CUBIC}")
    return call.emit(operator, x, sizes, places == "align_corners", scales)


def _target(call: Call, space: int) -> tuple[tuple[Size, ...] | None, tuple[float, ...] | None]:
    """Sizes of the axes of space, or scales; None for those that are not given."""
    axes = call.attribute("axes", tuple(range(space + 2)))
    if axes not in (tuple(range(space + 2)), tuple(range(2, space + 2))):
        raise ProgramError(f"axes={axes} are not read: all of them, or those of space")
    if call.has(3):
        sizes = call.sizes(3)
        if len(sizes) != len(axes):
            raise ProgramError(f"{len(sizes)} sizes came, {len(axes)} were wanted")
        return sizes[-space:], None
    scales = tuple(float(scale) for scale in call.setting(2).flatten().tolist())
    if len(scales) != len(axes) or any(scale != 1 for scale in scales[:-space]):
        raise ProgramError(f"scales {scales[:5]} are not read: batch and channels are kept")
    return None, scales[-space:]


def _to_space(call: Call) -> Result:
    call.refuse_unless("mode", "DCR", "CRD")
    block, x = call.attribute("blocksize", 0), call.tensor(0)
    if call.attribute("mode", "DCR") == "CRD":
        return call.emit("pixel_shuffle.default", x, block)
    batch, channels, height, width = call.builder.shape(x)
    if not isinstance(channels, int) or block < 1 or channels % block**2:
        raise ProgramError(f"{channels} channels are no squares of {block}")
    inner = channels // block**2
    x = call.emit("reshape.default", x, (batch, block, block, inner, height, width))
    x = call.emit("permute.default", x, (0, 3, 1, 2, 4, 5))
    x = call.emit("reshape.default", x, (batch, channels, height, width))
    return call.emit("pixel_shuffle.default", x, block)


IMAGES: Final[Mapping[str, Translation]] = {
    "AveragePool": _average_pool,
    "DepthToSpace": _to_space,
    "GlobalAveragePool": _global_pool("mean.dim"),
    "GlobalMaxPool": _global_pool("amax.default"),
    "MaxPool": _max_pool,
    "Pad": _pad,
    "Resize": _resize,
}
