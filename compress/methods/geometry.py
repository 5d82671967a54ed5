"""Stages that split the geometry of a convolution among them."""

from dataclasses import replace

from compress.errors import UnsupportedLayerError
from compress.shape import ConvShape, LayerShape, Padding


def grouped_obstacle(shape: ConvShape) -> str | None:
    """Why a grouped convolution cannot be factorised."""
    if shape.groups == 1:
        return None
    return (
        f"groups={shape.groups} came, groups=1 was wanted: "
        "a grouped convolution holds separate kernels that share no channels"
    )


def kernel_obstacle(shape: LayerShape) -> str | None:
    """Why a method that splits places from channels cannot represent a layer."""
    if not isinstance(shape, ConvShape):
        return "a linear layer has no kernel to split; svd factorises it"
    if shape.kernel_size == (1, 1):
        return "a 1x1 kernel has no places to split; svd factorises it"
    return grouped_obstacle(shape)


def as_conv(shape: LayerShape) -> ConvShape:
    """`shape`, known to be that of a convolution."""
    if not isinstance(shape, ConvShape):
        raise UnsupportedLayerError(f"{shape} came; the shape of a convolution was wanted")
    return shape


def pointwise(in_channels: int, out_channels: int, *, bias: bool = False) -> ConvShape:
    """A 1x1 convolution: without bias it commutes with padding, stride and dilation."""
    return ConvShape(
        in_channels=in_channels, out_channels=out_channels, kernel_size=(1, 1), bias=bias
    )


def vertical(shape: ConvShape) -> ConvShape:
    """`shape` with what it does along the height alone."""
    return replace(
        shape,
        kernel_size=(shape.kernel_size[0], 1),
        stride=(shape.stride[0], 1),
        padding=_padding(shape.padding, 0),
        dilation=(shape.dilation[0], 1),
    )


def horizontal(shape: ConvShape) -> ConvShape:
    """`shape` with what it does along the width alone."""
    return replace(
        shape,
        kernel_size=(1, shape.kernel_size[1]),
        stride=(1, shape.stride[1]),
        padding=_padding(shape.padding, 1),
        dilation=(1, shape.dilation[1]),
    )


def _padding(padding: Padding, axis: int) -> Padding:
    """The part of one axis; each padding mode acts on the axes one after the other."""
    if padding == "same":
        return "same"
    if padding == "valid":
        return (0, 0)
    return (padding[0], 0) if axis == 0 else (0, padding[1])
