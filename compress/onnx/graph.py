"""An ONNX graph in the making: nodes, weights and the names of what flows between them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from torch import Tensor

OPSET = 20
IR_VERSION = 10  # of the file format, as torch writes it; onnx itself writes what few can read yet
INPUT, OUTPUT = "input", "output"
BATCH = "batch"  # the name of the dimension that is free


class Graph:
    """Nodes in the order in which they are computed, and the weights that they read."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, TensorProto] = {}
        self._uses: Counter[str] = Counter()

    def add(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """A node of one output, which bears the node's name, made unique, and is returned."""
        self._uses[name] += 1
        name = name if self._uses[name] == 1 else f"{name}.{self._uses[name]}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def weight(self, name: str, values: Tensor) -> str:
        """A weight; the same name a second time is the same weight."""
        if name not in self.weights:
            self.weights[name] = as_weight(name, values)
        return name

    def model(self, source: ValueInfoProto, target: ValueInfoProto) -> ModelProto:
        """The whole, from `source` to `target`."""
        graph = helper.make_graph(
            self.nodes, "main_graph", [source], [target], list(self.weights.values())
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)


def as_weight(name: str, values: Tensor) -> TensorProto:
    """A tensor as ONNX stores it."""
    return numpy_helper.from_array(values.detach().cpu().contiguous().numpy(), name)


def batches_of(name: str, like: Tensor) -> ValueInfoProto:
    """An input or output of batches of any size, otherwise of the shape of `like`."""
    kind = helper.np_dtype_to_tensor_dtype(like.detach().cpu().numpy().dtype)
    return helper.make_tensor_value_info(name, kind, [BATCH, *like.shape[1:]])


def fix_(model: ModelProto, sizes: Mapping[str, int]) -> None:
    """Give axes their length that the exporter names as if they were free, but has fixed.

    Args:
        model: changed.
        sizes: the name of an axis -> its only length.
    """
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in sizes:
                axis.dim_value = sizes[axis.dim_param]


def strip_(model: ModelProto) -> None:
    """Take out what an exporter notes of the author's files, modules and frames."""
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info):
        part.ClearField("metadata_props")
    for part in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        part.ClearField("metadata_props")
    onnx.checker.check_model(model)
