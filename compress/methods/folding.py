"""Features folded into slices: one small layer for all of them in place of a large one.

A layer on slices is a Kronecker product with the identity. A slice is a run of neighbouring
channels of a convolution; of a linear layer, every so-manieth feature, as the features are last.
"""

from dataclasses import replace
from typing import Any

from compress.shape import ConvShape, FlatShape, GridShape, LayerShape, Stage, TransposedShape


def sliced(name: str, layer: LayerShape, slices: int) -> tuple[Stage, ...]:
    """`layer` for each of so many slices, parted before and joined again behind; bare for one.

    Its bias, if any, is of all slices together: each has its own.
    """
    if slices == 1:
        return (Stage(name, layer),)
    bare = replace(layer, bias=False)
    if not isinstance(bare, ConvShape):
        return (
            Stage(f"{name}_grid", GridShape(channels=bare.in_features, slices=slices)),
            Stage(name, bare),
            Stage(
                f"{name}_flat",
                FlatShape(channels=bare.out_features, slices=slices, bias=layer.bias),
            ),
        )
    axes = bare.axes
    return (
        Stage(f"{name}_grid", GridShape(channels=bare.in_channels, slices=slices, axes=axes)),
        Stage(name, _over_slices(bare)),
        Stage(
            f"{name}_flat",
            FlatShape(channels=bare.out_channels, slices=slices, axes=axes, bias=layer.bias),
        ),
    )


def _over_slices(shape: ConvShape) -> ConvShape:
    """The convolution with a further axis in front, along which it does nothing."""
    padding = shape.padding if isinstance(shape.padding, str) else (0, *shape.padding)
    sizes: dict[str, Any] = {
        "kernel_size": (1, *shape.kernel_size),
        "stride": (1, *shape.stride),
        "padding": padding,
        "dilation": (1, *shape.dilation),
    }
    if isinstance(shape, TransposedShape):
        sizes["output_padding"] = (0, *shape.output_padding)
    return replace(shape, **sizes)
