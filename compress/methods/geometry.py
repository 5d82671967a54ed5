"""Stages that split the geometry of a convolution among them."""

from dataclasses import replace

from compress.errors import UnsupportedLayerError
from compress.shape import ConvShape, LayerShape, Size, TransposedShape


def kernel_obstacle(shape: LayerShape) -> str | None:
    """Why a method that splits places from channels cannot represent a layer."""
    if not isinstance(shape, ConvShape):
        return "a linear layer has no kernel to split; svd factorises it"
    if set(shape.kernel_size) == {1}:
        kernel = "x".join(map(str, shape.kernel_size))
        return f"a {kernel} kernel has no places to split; svd factorises it"
    return None


def as_conv(shape: LayerShape) -> ConvShape:
    """`shape`, known to be that of a convolution."""
    if not isinstance(shape, ConvShape):
        raise UnsupportedLayerError(f"{shape} came; the shape of a convolution was wanted")
    return shape


def pointwise(
    in_channels: int, out_channels: int, *, bias: bool = False, axes: int = 2
) -> ConvShape:
    """A 1x1 convolution: without bias it commutes with padding, stride and dilation."""
    return ConvShape(
        in_channels=in_channels, out_channels=out_channels, kernel_size=(1,) * axes, bias=bias
    )


def vertical(shape: ConvShape) -> ConvShape:
    """`shape` with what it does along the first axis alone: the height, of two."""
    return along(shape, 0)


def horizontal(shape: ConvShape) -> ConvShape:
    """`shape` with what it does along all axes but the first: the width, of two."""
    return along(shape, *range(1, shape.axes))


def along(shape: ConvShape, *axes: int) -> ConvShape:
    """`shape` with what it does along `axes` alone.

    Each padding mode acts on the axes one after the other, so the padding can be split.
    """
    padding = shape.padding
    if padding == "valid":
        padding = ()
    elif padding != "same":
        padding = _only(padding, axes, 0)
    shape = replace(
        shape,
        kernel_size=_only(shape.kernel_size, axes, 1),
        stride=_only(shape.stride, axes, 1),
        padding=padding,
        dilation=_only(shape.dilation, axes, 1),
    )
    if isinstance(shape, TransposedShape):
        return replace(shape, output_padding=_only(shape.output_padding, axes, 0))
    return shape


def _only(size: Size, axes: tuple[int, ...], other: int) -> Size:
    return tuple(n if axis in axes else other for axis, n in enumerate(size))
