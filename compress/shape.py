"""The shapes of dense layers and of the stages that replace them, without torch.

One alphabet throughout: N batch; O and I output and input channels or features; H, W image, or
as many sizes as there are axes in space; kh, kw kernel, likewise; G groups; R with a subscript
for ranks.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
Size = tuple[int, ...]  # of each axis in space: (W,), (H, W) or (D, H, W)
Padding = Size | Literal["same", "valid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvShape:
    """Everything that `nn.Conv1d`, `nn.Conv2d` or `nn.Conv3d` takes.

    The kernel tells how many axes in space there are. The weight is (O, I / G, *kernel); of
    the sizes that are left out, strides and dilations are 1, paddings 0.

    Raises:
        ValueError: the sizes are not of equally many axes.
    """

    in_channels: int
    out_channels: int
    kernel_size: Size
    stride: Size = ()
    padding: Padding = ()
    dilation: Size = ()
    groups: int = 1
    padding_mode: PaddingMode = "zeros"
    bias: bool = True

    def __post_init__(self) -> None:
        for field, usual in (("stride", 1), ("padding", 0), ("dilation", 1)):
            _complete(self, field, usual)

    @property
    def axes(self) -> int:
        """Axes in space: 1, 2 or 3."""
        return len(self.kernel_size)

    @property
    def type(self) -> str:
        """The name of the torch class."""
        return f"Conv{self.axes}d"

    @property
    def parameters(self) -> int:
        weight = self.out_channels * (self.in_channels // self.groups) * math.prod(self.kernel_size)
        return weight + self.out_channels * self.bias

    def output_size(self, size: Size) -> Size:
        """Sizes after the layer, for an input of `size`; slices before them stay as many."""
        if self.padding == "same":
            return size
        padding = (0,) * self.axes if self.padding == "valid" else self.padding
        return size[: -self.axes] + tuple(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(
                size[-self.axes :],
                padding,
                self.dilation,
                self.kernel_size,
                self.stride,
                strict=True,
            )
        )

    def macs(self, size: Size) -> int:
        """Multiply-adds of one input of `size`, biases left out."""
        products = (self.in_channels // self.groups) * math.prod(self.kernel_size)
        return math.prod(self.output_size(size)) * self.out_channels * products


def _complete(shape: ConvShape, field: str, usual: int) -> None:
    """Set a size that was left out, and check one that was not."""
    size = getattr(shape, field) or (usual,) * shape.axes
    object.__setattr__(shape, field, size)
    if not isinstance(size, str) and len(size) != shape.axes:
        raise ValueError(
            f"{field} {size} came; {shape.axes} sizes were wanted, as in the kernel "
            f"{shape.kernel_size}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TransposedShape(ConvShape):
    """Everything that `nn.ConvTranspose1d`, `2d` or `3d` takes; the weight is (I, O / G, *kernel).

    It is the convolution, with stride 1, of the input with `stride - 1` zeros between its values.
    """

    output_padding: Size = ()

    def __post_init__(self) -> None:
        ConvShape.__post_init__(self)
        _complete(self, "output_padding", 0)

    @property
    def type(self) -> str:
        return f"ConvTranspose{self.axes}d"

    @property
    def margins(self) -> tuple[tuple[int, int], ...]:
        """Zeros before and after the spread input along each axis; below 0 it is cut."""
        assert not isinstance(self.padding, str)  # torch takes numbers alone
        return tuple(
            (d * (k - 1) - p, d * (k - 1) - p + more)
            for d, k, p, more in zip(
                self.dilation, self.kernel_size, self.padding, self.output_padding, strict=True
            )
        )

    def output_size(self, size: Size) -> Size:
        return size[: -self.axes] + tuple(
            (n - 1) * s + before + after - d * (k - 1) + 1
            for n, s, (before, after), d, k in zip(
                size[-self.axes :],
                self.stride,
                self.margins,
                self.dilation,
                self.kernel_size,
                strict=True,
            )
        )

    def macs(self, size: Size) -> int:
        """Multiply-adds of one input of `size`: every value meets the whole kernel."""
        products = (self.out_channels // self.groups) * math.prod(self.kernel_size)
        return math.prod(size) * self.in_channels * products


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearShape:
    """Everything that `nn.Linear` takes; the weight is (O, I)."""

    in_features: int
    out_features: int
    bias: bool = True

    @property
    def type(self) -> str:
        """The name of the torch class."""
        return "Linear"

    @property
    def parameters(self) -> int:
        return self.out_features * (self.in_features + self.bias)

    def output_size(self, size: Size) -> Size:
        """A linear layer keeps the number of rows it is applied to."""
        return size

    def macs(self, size: Size) -> int:
        """Multiply-adds for (rows, 1) vectors per input, biases left out."""
        return math.prod(size) * self.in_features * self.out_features


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightShape(LinearShape):
    """One weight of a recurrent layer, (O, I) for the gates together: it is a linear layer without
    bias that is applied once for every time step."""

    layer: str  # the name of the torch class
    bias: bool = False

    @property
    def type(self) -> str:
        return f"{self.layer} weight"

    @property
    def plain(self) -> LinearShape:
        """Of the same matrix as a layer by itself."""
        return LinearShape(in_features=self.in_features, out_features=self.out_features, bias=False)


LayerShape = ConvShape | LinearShape


@dataclass(frozen=True, slots=True, kw_only=True)
class GridShape:
    """Features parted into slices, of each group by itself: the layer behind serves every slice.

    Of so many slices, each has every so-manieth feature. They join the batch, (N, C, *size) to
    (N * slices, channels, *size); with `axes` 0, before a linear layer, they are rows, (..., C) to
    (..., slices, channels).
    """

    channels: int  # of a slice, in each group
    slices: int
    axes: int = 0  # in space
    groups: int = 1

    @property
    def type(self) -> str:
        """The name of the class in `compress.load`."""
        return "Grid"

    @property
    def in_channels(self) -> int:
        return self.groups * self.channels * self.slices

    @property
    def out_channels(self) -> int:
        return self.groups * self.channels

    @property
    def parameters(self) -> int:
        return 0

    def output_size(self, size: Size) -> Size:
        """The slices stand before the sizes in space."""
        return self.slices, *size

    def macs(self, _size: Size) -> int:
        """Values change places, none is multiplied."""
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatShape:
    """Slices as features again, one slice after the other, and a bias for each feature."""

    channels: int  # of a slice, in each group
    slices: int
    axes: int = 0  # in space
    groups: int = 1
    bias: bool = False

    @property
    def type(self) -> str:
        """The name of the class in `compress.load`."""
        return "Flat"

    @property
    def in_channels(self) -> int:
        return self.groups * self.channels

    @property
    def out_channels(self) -> int:
        return self.groups * self.channels * self.slices

    @property
    def parameters(self) -> int:
        return self.out_channels * self.bias

    def output_size(self, size: Size) -> Size:
        """What `GridShape` was given."""
        return size[1:]

    def macs(self, _size: Size) -> int:
        """Nothing is multiplied."""
        return 0


StageShape = LayerShape | GridShape | FlatShape


def inputs_of(shape: StageShape) -> int:
    """Channels, or features, that go in."""
    return shape.in_features if isinstance(shape, LinearShape) else shape.in_channels


def outputs_of(shape: StageShape) -> int:
    """Channels, or features, that come out."""
    return shape.out_features if isinstance(shape, LinearShape) else shape.out_channels


@dataclass(frozen=True, slots=True)
class Stage:
    """One part of a factorised layer; `name` is its key in the state dict."""

    name: str
    shape: StageShape


def weighted(stages: Iterable[Stage]) -> list[tuple[str, LayerShape]]:
    """Name and shape of the stages that have a weight: the plain layers."""
    return [
        (stage.name, stage.shape)
        for stage in stages
        if isinstance(stage.shape, ConvShape | LinearShape)
    ]


def stage_parameters(stages: Iterable[Stage]) -> int:
    """Parameters of the stages together."""
    return sum(stage.shape.parameters for stage in stages)


def stage_macs(stages: Iterable[Stage], size: Size) -> int:
    """Multiply-adds of one input of `size`, each stage at its own resolution."""
    macs = 0
    for stage in stages:
        macs += stage.shape.macs(size)
        size = stage.shape.output_size(size)
    return macs


def peak_activation(stages: Iterable[Stage], size: Size) -> int:
    """Largest number of values that one stage reads and writes for one input of `size`."""
    peak = 0
    for stage in stages:
        after = stage.shape.output_size(size)
        read, written = widths(stage.shape)
        values = read * math.prod(size) + written * math.prod(after)
        peak = max(peak, values)
        size = after
    return peak


def widths(shape: StageShape) -> tuple[int, int]:
    """Features before and after."""
    if isinstance(shape, LinearShape):
        return shape.in_features, shape.out_features
    return shape.in_channels, shape.out_channels
