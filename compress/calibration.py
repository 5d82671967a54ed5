"""Statistics of what enters each layer, gathered from unlabelled inputs in one pass."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.errors import CompressError, UnsupportedLayerError
from compress.layers import shape_of
from compress.shape import ConvShape, Size

# Patches gathered at a time. Their products are summed in their own dtype, so few rows keep
# float32 exact to about 1e-6; across chunks the sums are float64.
CHUNK_BYTES = 64 * 2**20
CHUNK_ROWS = 8192


@dataclass(frozen=True, slots=True)
class LayerMoments:
    """Averages over all patches x that enter a layer, on the layer's device.

    A patch of a convolution is flattened in the order (I, kh, kw), D = I * kh * kw; a linear
    layer has D = I.
    """

    second: Tensor  # (D, D) float64, the mean of x x^T
    mean: Tensor  # (D,) float64
    count: int


@dataclass(frozen=True, slots=True)
class Trace:
    """How a network uses a layer: calls in one forward pass, and the input of the first.

    `input_size` is (H, W) of a convolution, (vectors per network input, 1) of a linear layer.
    """

    calls: int
    input_size: Size
    input_shape: tuple[int, ...]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; afterwards each module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def watching(inputs: Mapping[nn.Module, Callable[[Tensor], None]]) -> Iterator[None]:
    """Hand what enters each of the modules to its function."""

    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        inputs[module](args[0])

    with ExitStack() as stack:
        for module in inputs:
            stack.callback(module.register_forward_pre_hook(hook).remove)
        yield


def trace(model: nn.Module, example: Tensor) -> dict[str, Trace]:
    """The plain Conv2d and Linear layers that a forward pass calls, in the order of their calls.

    A layer that is not here is never called: a parent reads its weight, or nothing does.

    Args:
        model: runs in eval mode.
        example: a batch (N, ...) of inputs.
    """
    traces: dict[str, Trace] = {}

    def record(name: str, layer: nn.Module, x: Tensor) -> None:
        vectors = x.numel() // (x.shape[-1] * len(example))
        size = (vectors, 1) if isinstance(layer, nn.Linear) else (x.shape[-2], x.shape[-1])
        first = traces.get(name, Trace(0, size, tuple(x.shape)))
        traces[name] = Trace(first.calls + 1, first.input_size, first.input_shape)

    layers = {
        layer: lambda x, name=name, layer=layer: record(name, layer, x)
        for name, layer in model.named_modules()
        if type(layer) in (nn.Conv2d, nn.Linear)
    }
    with evaluating(model), watching(layers):
        model(example)
    return traces


def moments(
    model: nn.Module, batches: Iterable[Tensor], names: Iterable[str]
) -> dict[str, LayerMoments]:
    """First and second moments of the patches that enter the layers `names`.

    One pass over the batches, in eval mode; no activation is held. Every call of a layer in a
    forward pass counts.

    Raises:
        UnsupportedLayerError: a layer is no plain Conv2d with groups=1 and no plain Linear.
        CompressError: a layer is never called, or something that enters it is not finite.
    """
    sums = {name: _Sums(model.get_submodule(name)) for name in names}
    with evaluating(model), watching({entry.layer: entry.add for entry in sums.values()}):
        for batch in batches:
            model(batch)
    return {name: entry.averages(name) for name, entry in sums.items()}


def windows(shape: ConvShape, x: Tensor) -> Tensor:
    """The patches that a convolution sees, as a view of its padded input.

    Args:
        shape: any convolution; its groups are not told apart.
        x: (N, I, H, W), or (I, H, W) for N = 1.

    Returns:
        (N, H_out, W_out, I, kh, kw), sharing its memory: to be read, not written.
    """
    padded = _pad(shape, x if x.dim() == 4 else x[None])
    images, channels, height, width = padded.shape
    stride_n, stride_c, stride_h, stride_w = padded.stride()
    reach = [d * (k - 1) + 1 for d, k in zip(shape.dilation, shape.kernel_size, strict=True)]
    rows, columns = (
        (size - r) // s + 1 for size, r, s in zip((height, width), reach, shape.stride, strict=True)
    )
    return padded.as_strided(
        (images, rows, columns, channels, *shape.kernel_size),
        (
            stride_n,
            stride_h * shape.stride[0],
            stride_w * shape.stride[1],
            stride_c,
            stride_h * shape.dilation[0],
            stride_w * shape.dilation[1],
        ),
    )


def _pad(shape: ConvShape, x: Tensor) -> Tensor:
    if shape.padding == "valid":
        return x
    if shape.padding == "same":
        totals = [d * (k - 1) for d, k in zip(shape.dilation, shape.kernel_size, strict=True)]
        top, left = (total // 2 for total in totals)
        bottom, right = totals[0] - top, totals[1] - left
    else:
        top, left = bottom, right = shape.padding
    mode = "constant" if shape.padding_mode == "zeros" else shape.padding_mode
    return F.pad(x, (left, right, top, bottom), mode) if any((left, right, top, bottom)) else x


class _Sums:
    """Running sums over the patches of one layer."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self._shape = shape_of(layer)
        if isinstance(self._shape, ConvShape) and self._shape.groups != 1:
            raise UnsupportedLayerError(f"moments need groups=1, got groups={self._shape.groups}")
        weight = layer.get_parameter("weight")
        self._size = weight[0].numel()
        self._second = weight.new_zeros(self._size, self._size, dtype=torch.float64)
        self._total = weight.new_zeros(self._size, dtype=torch.float64)
        self._count = 0

    def add(self, x: Tensor) -> None:
        for chunk in self._chunks(x):
            patches = chunk.reshape(-1, self._size)
            if patches.dtype in (torch.float16, torch.bfloat16):
                patches = patches.float()
            self._second += patches.T @ patches
            self._total += patches.sum(0, dtype=torch.float64)
            self._count += len(patches)

    def averages(self, name: str) -> LayerMoments:
        if not self._count:
            raise CompressError(f"layer {name!r} is never called: its weight is read elsewhere")
        second = (self._second + self._second.T) / (2 * self._count)
        if not second.isfinite().all():
            raise CompressError(f"what enters layer {name!r} is not finite")
        return LayerMoments(second, self._total / self._count, self._count)

    def _chunks(self, x: Tensor) -> Iterator[Tensor]:
        limit = min(CHUNK_ROWS, max(1, CHUNK_BYTES // (4 * self._size)))
        if not isinstance(self._shape, ConvShape):
            yield from torch.split(x.reshape(-1, self._size), limit)
            return
        patches = windows(self._shape, x)
        _, rows, columns = patches.shape[:3]
        if rows * columns <= limit:
            yield from torch.split(patches, limit // (rows * columns))
            return
        for image in patches:
            yield from torch.split(image, max(1, limit // columns))
