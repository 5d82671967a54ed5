"""Features folded into slices: one small layer for all of them in place of a large one.

A layer on slices is a Kronecker product of its weight with the identity.
"""

from dataclasses import replace

from compress.shape import ConvShape, FlatShape, GridShape, LayerShape, Stage, widths


def sliced(name: str, layer: LayerShape, slices: int) -> tuple[Stage, ...]:
    """`layer` for each of so many slices, parted before and joined again behind; bare for one.

    Its bias, if any, is one for each of the features that all slices have together.
    """
    if slices == 1:
        return (Stage(name, layer),)
    axes = layer.axes if isinstance(layer, ConvShape) else 0
    inside, outside = widths(layer)
    return (
        Stage(f"{name}_grid", GridShape(channels=inside, slices=slices, axes=axes)),
        Stage(name, replace(layer, bias=False)),
        Stage(
            f"{name}_flat",
            FlatShape(channels=outside, slices=slices, axes=axes, bias=layer.bias),
        ),
    )
