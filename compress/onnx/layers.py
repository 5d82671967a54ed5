"""ONNX graphs of single layers, written node by node: torch's exporter takes seconds for each."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnx import ModelProto
from torch import Tensor, nn

from compress.calibration import evaluating
from compress.errors import UnsupportedLayerError
from compress.layers import shape_of
from compress.load import Flat, Grid
from compress.onnx import slices
from compress.onnx.graph import INPUT, OUTPUT, Graph, batches_of
from compress.shape import ConvShape, TransposedShape
from compress.surgery import is_factorized

# torch's padding modes, other than zeros, in ONNX's words.
PAD_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def layer_model(layer: nn.Module, example: Tensor) -> ModelProto:
    """The graph of one layer, for batches of any size.

    Args:
        layer: plain, or factorised.
        example: a batch (N, ...) of its inputs; its shape and dtype alone are read.

    Raises:
        UnsupportedLayerError: it is neither, or a stage of another type.
    """
    graph = Graph()
    with evaluating(layer), torch.no_grad():
        result = layer(torch.zeros_like(example))
    graph.add("Identity", [write(graph, layer, "layer", INPUT)], OUTPUT)
    return graph.model(batches_of(INPUT, example), batches_of(OUTPUT, result))


def is_writable(layer: nn.Module) -> bool:
    """Whether `write` knows the layer."""
    if is_factorized(layer):
        return all(is_writable(stage) for stage in layer)
    return type(layer) in WRITERS


def write(graph: Graph, layer: nn.Module, name: str, source: str) -> str:
    """Add the nodes of `layer`, of which each is named after the stage that it computes.

    Args:
        graph: that they are added to.
        layer: plain, or factorised.
        name: of the layer; its weights are named as in the state dict.
        source: the value that the layer reads.

    Returns:
        The value that the layer puts out.

    Raises:
        UnsupportedLayerError: it is neither, or a stage of another type.
    """
    if is_factorized(layer):
        for stage, child in layer.named_children():
            source = write(graph, child, f"{name}.{stage}", source)
        return source
    if type(layer) not in WRITERS:
        raise UnsupportedLayerError(
            f"{name!r} is a {type(layer).__name__}; {', '.join(k.__name__ for k in WRITERS)} "
            "were wanted: add what writes its nodes to compress/onnx/layers.py"
        )
    return WRITERS[type(layer)](graph, layer, name, source)


def _linear(graph: Graph, layer: nn.Module, name: str, source: str) -> str:
    """For inputs of any number of axes; onnxruntime makes one node of the two where it can."""
    weight = graph.weight(f"{name}.weight.T", layer.get_parameter("weight").T)
    product = graph.add("MatMul", [source, weight], f"{name}.matmul")
    if layer.bias is None:
        return product
    return graph.add("Add", [product, *_bias(graph, layer, name)], f"{name}.add")


def _conv(graph: Graph, layer: nn.Module, name: str, source: str) -> str:
    shape = shape_of(layer)
    assert isinstance(shape, ConvShape)
    before, after = _margins(shape)
    if shape.padding_mode != "zeros" and any((*before, *after)):
        sizes = torch.tensor([0, 0, *before, 0, 0, *after])
        read = [source, graph.weight(f"{name}.padding", sizes)]
        source = graph.add("Pad", read, f"{name}.pad", mode=PAD_MODES[shape.padding_mode])
        before = after = (0,) * shape.axes
    read = [graph.weight(f"{name}.weight", layer.get_parameter("weight"))]
    return graph.add(
        "Conv",
        [source, *read, *_bias(graph, layer, name)],
        f"{name}.conv",
        **_geometry(shape),
        pads=[*before, *after],
    )


def _transposed(graph: Graph, layer: nn.Module, name: str, source: str) -> str:
    shape = shape_of(layer)
    assert isinstance(shape, TransposedShape)
    before, after = _margins(shape)
    more = list(shape.output_padding)
    if any(m >= s for m, s in zip(more, shape.stride, strict=True)):
        # onnxruntime refuses as much: the input is lengthened by zeros instead, the output cut.
        zeros = [math.ceil(m / s) for m, s in zip(more, shape.stride, strict=True)]
        sizes = torch.tensor([0, 0, *[0] * shape.axes, 0, 0, *zeros])
        source = graph.add("Pad", [source, graph.weight(f"{name}.zeros", sizes)], f"{name}.pad")
        after = [
            p + zero * s - m for p, zero, s, m in zip(after, zeros, shape.stride, more, strict=True)
        ]
        more = [0] * shape.axes
    read = [graph.weight(f"{name}.weight", layer.get_parameter("weight"))]
    return graph.add(
        "ConvTranspose",
        [source, *read, *_bias(graph, layer, name)],
        f"{name}.conv",
        **_geometry(shape),
        pads=[*before, *after],
        output_padding=more,
    )


def _bias(graph: Graph, layer: nn.Module, name: str) -> list[str]:
    if layer.bias is None:
        return []
    return [graph.weight(f"{name}.bias", layer.get_parameter("bias"))]


def _geometry(shape: ConvShape) -> dict[str, int | list[int]]:
    return {
        "kernel_shape": list(shape.kernel_size),
        "strides": list(shape.stride),
        "dilations": list(shape.dilation),
        "group": shape.groups,
    }


def _margins(shape: ConvShape) -> tuple[Sequence[int], Sequence[int]]:
    """Places added before and after along each axis; of an odd number torch adds more after."""
    if shape.padding == "valid":
        return (0,) * shape.axes, (0,) * shape.axes
    if shape.padding != "same":
        return shape.padding, shape.padding
    totals = [d * (k - 1) for d, k in zip(shape.dilation, shape.kernel_size, strict=True)]
    before = [total // 2 for total in totals]
    return before, [total - first for total, first in zip(totals, before, strict=True)]


# What adds the nodes: (graph, layer, name, the value it reads) -> the value it puts out.
WRITERS: dict[type[nn.Module], Callable[[Graph, Any, str, str], str]] = {
    Flat: slices.flat,
    Grid: slices.grid,
    nn.Linear: _linear,
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.Conv3d: _conv,
    nn.ConvTranspose1d: _transposed,
    nn.ConvTranspose2d: _transposed,
    nn.ConvTranspose3d: _transposed,
}
