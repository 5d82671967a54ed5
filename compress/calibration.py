"""Statistics of what enters each layer, gathered from unlabelled inputs in one pass."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.errors import CompressError
from compress.kernels import kernel_size
from compress.layers import is_plain, shape_of
from compress.methods.groups import groups_of
from compress.metric import ModeMoments, of_trace_one
from compress.shape import ConvShape, Size, TransposedShape
from compress.shrinkage import shrunk

# Patches gathered at a time. Their products are summed in their own dtype, so few rows keep
# float32 exact to about 1e-6; across chunks the sums are float64.
CHUNK_BYTES = 64 * 2**20
CHUNK_ROWS = 8192


@dataclass(frozen=True)
class LayerMoments:
    """Averages over all patches x that enter a layer, on the layer's device.

    A patch of a convolution is flattened in the order (I, *kernel), D entries; a linear layer
    has D = I. The groups of a convolution have patches of their own, D / G entries each.
    """

    second: Tensor  # (D, D) or (G, D / G, D / G) float64, the mean of x x^T
    mean: Tensor  # (D,) or (G, D / G) float64
    count: int

    @cached_property
    def metric(self) -> Tensor:
        """What to decompose by: of few patches drawn towards equal variances."""
        return shrunk(self.second, self.count)


@dataclass(frozen=True, slots=True)
class Trace:
    """How a network uses a layer: calls in one forward pass, and the input of the first.

    `input_size` is that in space of a convolution's input, (H, W) of a Conv2d; of a linear layer
    it is (vectors per network input, 1).
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
    """The plain convolutions and linear layers that a forward pass calls, in the order of calls.

    A layer that is not here is never called: a parent reads its weight, or nothing does.

    Args:
        model: runs in eval mode.
        example: a batch (N, ...) of inputs.
    """
    traces: dict[str, Trace] = {}

    def record(name: str, layer: nn.Module, x: Tensor) -> None:
        vectors = x.numel() // (x.shape[-1] * len(example))
        shape = shape_of(layer)
        size = tuple(x.shape[-shape.axes :]) if isinstance(shape, ConvShape) else (vectors, 1)
        first = traces.get(name, Trace(0, size, tuple(x.shape)))
        traces[name] = Trace(first.calls + 1, first.input_size, first.input_shape)

    layers = {
        layer: lambda x, name=name, layer=layer: record(name, layer, x)
        for name, layer in model.named_modules()
        if is_plain(layer)
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
        UnsupportedLayerError: a layer is no plain convolution and no plain Linear.
        CompressError: a layer is never called, or something that enters it is not finite.
    """
    sums = {name: _Sums(model.get_submodule(name)) for name in names}
    _add(model, batches, sums.values())
    found = {}
    for name, entry in sums.items():
        (second,) = entry.averages(name)
        found[name] = LayerMoments(entry.joined(second), entry.joined(entry.mean), entry.count)
    return found


def mode_moments(
    model: nn.Module, batches: Iterable[Tensor], names: Iterable[str], *, diagonal: bool = False
) -> dict[str, ModeMoments]:
    """Second moments over channels and over each axis in space: the partial traces of (D, D).

    For layers whose (D, D) does not fit into memory; otherwise as `moments`.

    Args:
        model: runs in eval mode.
        batches: inputs (N, ...).
        names: of plain layers.
        diagonal: of the channels the variances alone.

    Raises:
        UnsupportedLayerError: a layer is no plain convolution and no plain Linear.
        CompressError: a layer is never called, or something that enters it is not finite.
    """
    sums = {
        name: _Sums(model.get_submodule(name), by_mode=True, diagonal=diagonal) for name in names
    }
    _add(model, batches, sums.values())
    found = {}
    for name, entry in sums.items():
        channels, *axes = (entry.joined(moment) for moment in entry.averages(name))
        found[name] = ModeMoments(channels, tuple(map(of_trace_one, axes)))
    return found


def _add(model: nn.Module, batches: Iterable[Tensor], sums: "Iterable[_Sums]") -> None:
    with evaluating(model), watching({entry.layer: entry.add for entry in sums}):
        for batch in batches:
            model(batch)


def windows(shape: ConvShape, x: Tensor) -> Tensor:
    """The patches that a convolution sees, as a view of its padded input.

    A transposed one sees its input spread out, with zeros between, and steps by one.

    Args:
        shape: any convolution; its groups are not told apart.
        x: (N, I, *size), or (I, *size) for N = 1.

    Returns:
        (N, *output size, I, *kernel), sharing its memory: to be read, not written.
    """
    x = x if x.dim() == shape.axes + 2 else x[None]
    if isinstance(shape, TransposedShape):
        padded, steps = _spread(shape, x), (1,) * shape.axes
    else:
        padded, steps = _pad(shape, x), shape.stride
    images, channels, *size = padded.shape
    stride_n, stride_c, *strides = padded.stride()
    reach = [d * (k - 1) + 1 for d, k in zip(shape.dilation, shape.kernel_size, strict=True)]
    positions = [(n - r) // s + 1 for n, r, s in zip(size, reach, steps, strict=True)]
    return padded.as_strided(
        (images, *positions, channels, *shape.kernel_size),
        (
            stride_n,
            *(stride * s for stride, s in zip(strides, steps, strict=True)),
            stride_c,
            *(stride * d for stride, d in zip(strides, shape.dilation, strict=True)),
        ),
    )


def _spread(shape: TransposedShape, x: Tensor) -> Tensor:
    """What a transposed convolution convolves."""
    size = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], shape.stride, strict=True)]
    spread = x.new_zeros(*x.shape[:2], *size)
    places: list[EllipsisType | slice] = [..., *(slice(None, None, s) for s in shape.stride)]
    spread[tuple(places)] = x
    return F.pad(spread, [width for pair in reversed(shape.margins) for width in pair])


def _pad(shape: ConvShape, x: Tensor) -> Tensor:
    if shape.padding == "valid":
        return x
    if shape.padding == "same":
        totals = [d * (k - 1) for d, k in zip(shape.dilation, shape.kernel_size, strict=True)]
        sides = [(total // 2, total - total // 2) for total in totals]
    else:
        sides = [(width, width) for width in shape.padding]
    widths = [width for pair in reversed(sides) for width in pair]  # the last axis comes first
    mode = "constant" if shape.padding_mode == "zeros" else shape.padding_mode
    return F.pad(x, widths, mode) if any(widths) else x


class _Sums:
    """Running sums over the patches of one layer, whole or along each of their modes."""

    def __init__(self, layer: nn.Module, *, by_mode: bool = False, diagonal: bool = False) -> None:
        self.layer = layer
        self.count = 0
        self._shape = shape_of(layer)
        self._groups, (_, *inputs) = groups_of(self._shape), kernel_size(self._shape)
        self._sizes = inputs if by_mode else [math.prod(inputs)]
        device = next(layer.parameters()).device

        def zeros(*size: int) -> Tensor:
            return torch.zeros(self._groups, *size, dtype=torch.float64, device=device)

        self._total = zeros(math.prod(inputs))
        self._seconds = [zeros(size, size) for size in self._sizes]
        if diagonal:
            self._seconds[0] = zeros(self._sizes[0])

    def add(self, x: Tensor) -> None:
        for chunk in self._chunks(x):
            patches = chunk.reshape(-1, self._groups, *self._sizes).transpose(0, 1)
            if patches.dtype in (torch.float16, torch.bfloat16):
                patches = patches.float()
            for mode, second in enumerate(self._seconds, 2):
                rows = patches.movedim(mode, -1).flatten(1, -2)  # (G, rows, size)
                second.add_(rows.square().sum(1) if second.ndim == 2 else rows.mT @ rows)
            self._total += patches.sum(1, dtype=torch.float64).flatten(1)
            self.count += patches.shape[1]

    def averages(self, name: str) -> list[Tensor]:
        """Of each mode, (G, size, size), or (G, size) for a diagonal."""
        if not self.count:
            raise CompressError(f"layer {name!r} is never called: its weight is read elsewhere")
        means = [
            second / self.count if second.ndim == 2 else (second + second.mT) / (2 * self.count)
            for second in self._seconds
        ]
        if not all(mean.isfinite().all() for mean in means):
            raise CompressError(f"what enters layer {name!r} is not finite")
        return means

    @property
    def mean(self) -> Tensor:
        """(G, D / G)."""
        return self._total / self.count

    def joined(self, of_groups: Tensor) -> Tensor:
        """Without the axis of the groups where there is one alone."""
        return of_groups[0] if self._groups == 1 else of_groups

    def _chunks(self, x: Tensor) -> Iterator[Tensor]:
        entries = self._groups * math.prod(self._sizes)
        limit = min(CHUNK_ROWS, max(1, CHUNK_BYTES // (4 * entries)))
        if isinstance(self._shape, ConvShape):
            yield from _split(windows(self._shape, x), 1 + self._shape.axes, limit)
        else:
            yield from torch.split(x.reshape(-1, entries), limit)


def _split(patches: Tensor, axes: int, limit: int) -> Iterator[Tensor]:
    """Parts of at most `limit` patches, which lie along the first `axes`."""
    each = math.prod(patches.shape[1:axes])
    if axes == 1 or each <= limit:
        yield from torch.split(patches, limit // each)
        return
    for part in patches:
        yield from _split(part, axes - 1, limit)
