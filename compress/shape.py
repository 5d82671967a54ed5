"""The shapes of dense layers and of the stages that replace them, without torch.

One alphabet throughout: N batch; O and I output and input channels or features; H, W image;
kh, kw kernel; R with a subscript for ranks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
Padding = tuple[int, int] | Literal["same", "valid"]
Size = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvShape:
    """Everything that `nn.Conv2d` takes; the weight is (O, I / groups, kh, kw)."""

    in_channels: int
    out_channels: int
    kernel_size: Size
    stride: Size = (1, 1)
    padding: Padding = (0, 0)
    dilation: Size = (1, 1)
    groups: int = 1
    padding_mode: PaddingMode = "zeros"
    bias: bool = True

    @property
    def parameters(self) -> int:
        kh, kw = self.kernel_size
        weight = self.out_channels * (self.in_channels // self.groups) * kh * kw
        return weight + self.out_channels * self.bias

    def output_size(self, size: Size) -> Size:
        """(H, W) after the layer, for an input of (H, W)."""
        if self.padding == "same":
            return size
        padding = (0, 0) if self.padding == "valid" else self.padding
        height, width = (
            (size[i] + 2 * padding[i] - self.dilation[i] * (self.kernel_size[i] - 1) - 1)
            // self.stride[i]
            + 1
            for i in (0, 1)
        )
        return height, width

    def macs(self, size: Size) -> int:
        """Multiply-adds of one image of (H, W), biases left out."""
        kh, kw = self.kernel_size
        height, width = self.output_size(size)
        return height * width * self.out_channels * (self.in_channels // self.groups) * kh * kw


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearShape:
    """Everything that `nn.Linear` takes; the weight is (O, I)."""

    in_features: int
    out_features: int
    bias: bool = True

    @property
    def parameters(self) -> int:
        return self.out_features * (self.in_features + self.bias)

    def output_size(self, size: Size) -> Size:
        """A linear layer keeps the number of rows it is applied to."""
        return size

    def macs(self, size: Size) -> int:
        """Multiply-adds for (rows, 1) vectors per input, biases left out."""
        return size[0] * size[1] * self.in_features * self.out_features


LayerShape = ConvShape | LinearShape


@dataclass(frozen=True, slots=True)
class Stage:
    """One plain layer of a factorised layer; `name` is its key in the state dict."""

    name: str
    shape: LayerShape


def stage_parameters(stages: Iterable[Stage]) -> int:
    """Parameters of the stages together."""
    return sum(stage.shape.parameters for stage in stages)


def stage_macs(stages: Iterable[Stage], size: Size) -> int:
    """Multiply-adds of one input of (H, W), each stage at its own resolution."""
    macs = 0
    for stage in stages:
        macs += stage.shape.macs(size)
        size = stage.shape.output_size(size)
    return macs


def peak_activation(stages: Iterable[Stage], size: Size) -> int:
    """Largest number of values that one stage reads and writes for one input of (H, W)."""
    peak = 0
    for stage in stages:
        after = stage.shape.output_size(size)
        peak = max(
            peak, _width_in(stage) * size[0] * size[1] + _width_out(stage) * after[0] * after[1]
        )
        size = after
    return peak


def _width_in(stage: Stage) -> int:
    shape = stage.shape
    return shape.in_channels if isinstance(shape, ConvShape) else shape.in_features


def _width_out(stage: Stage) -> int:
    shape = stage.shape
    return shape.out_channels if isinstance(shape, ConvShape) else shape.out_features
