"""A grouped convolution: separate convolutions side by side, each on channels of its own.

So each group is factorised by itself, at the same ranks, and the stages of the groups lie side by
side again: grouped plain layers. A layer without groups is its own only group.
"""

from collections.abc import Iterable
from dataclasses import replace

from compress.shape import ConvShape, FlatShape, GridShape, LayerShape, Stage, StageShape


def groups_of(shape: LayerShape) -> int:
    """The number of groups, G; 1 of a linear layer."""
    return shape.groups if isinstance(shape, ConvShape) else 1


def group_shape(shape: LayerShape) -> LayerShape:
    """What each of the groups computes: (O / G, I / G, *kernel)."""
    if not isinstance(shape, ConvShape) or shape.groups == 1:
        return shape
    return replace(
        shape,
        in_channels=shape.in_channels // shape.groups,
        out_channels=shape.out_channels // shape.groups,
        groups=1,
    )


def side_by_side(stages: Iterable[Stage], groups: int) -> tuple[Stage, ...]:
    """The stages of all groups, given those of one."""
    return tuple(Stage(stage.name, _repeated(stage.shape, groups)) for stage in stages)


def _repeated(shape: StageShape, groups: int) -> StageShape:
    if isinstance(shape, GridShape | FlatShape):
        return replace(shape, groups=groups * shape.groups)
    if not isinstance(shape, ConvShape):
        return shape
    return replace(
        shape,
        in_channels=groups * shape.in_channels,
        out_channels=groups * shape.out_channels,
        groups=groups * shape.groups,
    )
