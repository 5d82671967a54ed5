"""The nodes of `Grid` and `Flat`, for inputs of any batch, and of any sizes in space."""

import torch
from torch import Tensor

from compress.load import Flat, Grid
from compress.onnx.graph import Graph

KEPT = 0  # a size that stays as it is, in a shape of ONNX
REST = -1  # a size that follows from the others


def grid(graph: Graph, layer: Grid, name: str, source: str) -> str:
    """Values of other places only: reshaped, two axes swapped, reshaped again."""
    channels, slices, groups = layer.channels, layer.slices, layer.groups
    if not layer.axes:
        sizes = graph.add("Shape", [source], f"{name}.sizes", end=-1)
        parts = _reshaped(graph, name, source, REST, channels, slices)
        turned = graph.add("Transpose", [parts], f"{name}.turned", perm=[0, 2, 1])
        return _reshaped(graph, name, turned, sizes, slices, channels)
    sizes = graph.add("Shape", [source], f"{name}.sizes", start=2)
    parts = _reshaped(graph, name, source, KEPT, groups, channels, slices, sizes)
    order = [0, 3, 1, 2, *range(4, 4 + layer.axes)]
    turned = graph.add("Transpose", [parts], f"{name}.turned", perm=order)
    return _reshaped(graph, name, turned, REST, groups * channels, sizes)


def flat(graph: Graph, layer: Flat, name: str, source: str) -> str:
    """What `grid` parted, as one again, and the bias."""
    channels, slices, groups = layer.channels, layer.slices, layer.groups
    if not layer.axes:
        sizes = graph.add("Shape", [source], f"{name}.sizes", end=-2)
        whole = _reshaped(graph, name, source, sizes, slices * channels)
        return whole if layer.bias is None else _added(graph, name, whole, layer.bias)
    sizes = graph.add("Shape", [source], f"{name}.sizes", start=2)
    parts = _reshaped(graph, name, source, REST, slices, groups, channels, sizes)
    order = [0, 2, 1, 3, *range(4, 4 + layer.axes)]
    turned = graph.add("Transpose", [parts], f"{name}.turned", perm=order)
    whole = _reshaped(graph, name, turned, KEPT, groups * slices * channels, sizes)
    if layer.bias is None:
        return whole
    return _added(graph, name, whole, layer.bias.reshape(-1, *[1] * layer.axes))


def _added(graph: Graph, name: str, source: str, bias: Tensor) -> str:
    return graph.add("Add", [source, graph.weight(f"{name}.bias.values", bias)], f"{name}.add")


def _reshaped(graph: Graph, name: str, source: str, *sizes: int | str) -> str:
    """`source` in a shape of numbers and of sizes that the graph computes."""
    parts = [
        size if isinstance(size, str) else graph.weight(f"{name}.{size}", torch.tensor([size]))
        for size in sizes
    ]
    shape = graph.add("Concat", parts, f"{name}.shape", axis=0)
    return graph.add("Reshape", [source, shape], f"{name}.reshaped")
