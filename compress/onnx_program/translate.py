"""An ONNX graph as a graph of aten operators, node by node."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

from compress.errors import ProgramError
from compress.onnx_program.arithmetic import ARITHMETIC
from compress.onnx_program.builder import Builder
from compress.onnx_program.call import (
    Batch,
    Bias,
    Call,
    Result,
    Sizes,
    Translation,
    attributes_of,
    values_of,
)
from compress.onnx_program.images import IMAGES
from compress.onnx_program.layers import LAYERS
from compress.onnx_program.model_file import DTYPES
from compress.onnx_program.recurrent import RECURRENT
from compress.onnx_program.reductions import REDUCTIONS
from compress.onnx_program.shapes import SHAPES
from compress.onnx_program.sizes import ON_SIZES, are_sizes, settled
from compress.onnx_program.weights import Weights
from compress.program.arguments import Reference, references
from compress.program.document import SHOWN
from compress.program.graph import Graph
from compress.program.lift import FAULTS
from compress.program.specs import MAX_AXES, MAX_VALUES, TensorSpec
from compress.program.trial import reason, unlogged

OPERATORS: Final[Mapping[str, Translation]] = {
    **ARITHMETIC, **IMAGES, **LAYERS, **RECURRENT, **REDUCTIONS, **SHAPES,
    "Shape": ON_SIZES["Shape"],
}  # fmt: skip
HINTS: Final = {
    "If": "control flow is not read",
    "Loop": "control flow is not read",
    "Scan": "control flow is not read",
    "QuantizeLinear": "a quantised network is not read: export it before quantisation",
    "DequantizeLinear": "a quantised network is not read: export it before quantisation",
    "NonZero": "a size that depends on values is not read",
    "RandomNormalLike": "it draws random numbers: export the network in eval mode",
    "RandomUniformLike": "it draws random numbers: export the network in eval mode",
}
ELSE: Final = "write that part of the network with other operators, or leave it out"
BATCHES: Final = (2, 3)  # of the two runs of the builder
# What an axis of an image, and one of a sequence, is tried at where the file leaves it free.
FREE: Final = {True: (224, 256), False: (16, 24)}
IMAGE_AXES: Final = 4
BATCH: Final = "batch"


def translate(model: ModelProto) -> tuple[Graph, Weights]:
    """The graph of a file that was checked, and its tensors.

    Args:
        model: its values may still be malformed.

    Raises:
        ProgramError: a node has an operator, a setting or values that are not read, or does not
            fit what it is given. It is named in a note.
    """
    with unlogged():
        return _Translator().translate(model.graph)


class _Translator:
    """The values of a file by their names."""

    def __init__(self) -> None:
        self._builder = Builder()
        self._weights = Weights(self._builder)
        self._values: dict[str, Result] = {}
        self._added: dict[str, str] = {}  # what a node adds a bias to, that is there already
        self._batch: Batch | None = None
        self._readers: dict[str, list[NodeProto]] = defaultdict(list)

    def translate(self, graph: GraphProto) -> tuple[Graph, Weights]:
        for tensor in graph.initializer:
            self._values[tensor.name] = self._weights.store(tensor.name, values_of(tensor))
        inputs = [entry for entry in graph.input if entry.name not in self._values]
        if not inputs:
            raise ProgramError("the network takes no tensor: one input at least was wanted")
        self._inputs(inputs)
        for node in graph.node:
            for name in node.input:
                self._readers[name].append(node)
        for entry in graph.output:
            self._readers[entry.name].append(NodeProto())
        for node in graph.node:
            try:
                self._node(node)
            except ProgramError as error:
                error.add_note(_said(node))
                raise
            except FAULTS as error:
                fault = ProgramError(
                    f"its inputs or attributes are not those of ONNX: {reason(error)}"
                )
                fault.add_note(_said(node))
                raise fault from error
        return self._finished([self._output(entry.name) for entry in graph.output])

    def _finished(self, outputs: Sequence[Reference]) -> tuple[Graph, Weights]:
        nodes, read = self._builder.live(outputs), [output.name for output in outputs]
        for node in nodes:
            read += references(node.arguments)
        self._weights.settle_(read)
        graph = Graph(
            tuple(self._builder.inputs),
            self._weights.state,
            nodes,
            tuple(output.name for output in outputs),
            self._builder.specs,
        )
        return graph, self._weights

    def _inputs(self, entries: Sequence[ValueInfoProto]) -> None:
        """The inputs. The first axis of the first is the batch, whether it is free or not."""
        declared = [_declared(entry) for entry in entries]
        first = declared[0][1]
        if not first:
            raise ProgramError(f"input {entries[0].name[:SHOWN]!r} has no axes, a batch was wanted")
        batch = first[0]
        for entry, (dtype, axes) in zip(entries, declared, strict=True):
            is_batch = [
                length == batch and (axis == 0 or isinstance(batch, str))
                for axis, length in enumerate(axes)
            ]
            free = FREE[len(axes) >= IMAGE_AXES]
            symbols = tuple(
                BATCH if batched else length if isinstance(length, str) else None
                for batched, length in zip(is_batch, axes, strict=True)
            )
            one, other = (
                tuple(
                    BATCHES[run] if symbol == BATCH else free[run] if symbol else length
                    for symbol, length in zip(symbols, axes, strict=True)
                )
                for run in (0, 1)
            )
            spec = TensorSpec(dtype, one, symbols)  # type: ignore[arg-type]
            self._values[entry.name] = self._builder.input(spec, other)  # type: ignore[arg-type]
        if isinstance(batch, int):
            first_input = Reference(next(iter(self._builder.inputs)))
            self._batch = Batch(batch, self._builder.length(first_input, 0))

    def _node(self, node: NodeProto) -> None:
        if node.output[0] in self._added:
            self._values[node.output[0]] = self._values[self._added[node.output[0]]]
            return
        self._builder.node = node.name or node.op_type
        bias = self._bias(node)
        call = Call(
            node,
            tuple(self._values[name] if name else None for name in node.input),
            self._builder,
            self._weights,
            self._batch,
            attributes_of(node),
            bias,
        )
        results = self._results(call)
        if bias is not None:
            self._added[bias.node.output[0]] = node.output[0]
        for name, result in zip(node.output, results, strict=False):
            self._values[name] = result
        if any(name and name not in self._values for name in node.output):
            raise ProgramError("it has more results than are read")

    def _results(self, call: Call) -> Sequence[Result]:
        kind = call.node.op_type
        if kind in ON_SIZES and are_sizes(call):
            found: Result | Sequence[Result] = ON_SIZES[kind](call)
        elif kind in OPERATORS:
            found = OPERATORS[kind](call)
        else:
            raise ProgramError(
                f"the operator is not among the {len(OPERATORS)} that are read: "
                f"{HINTS.get(kind, ELSE)}"
            )
        if isinstance(found, Sizes):
            return [settled(call, found)]
        return [found] if isinstance(found, Reference) else found

    def _bias(self, node: NodeProto) -> Bias | None:
        """The vector that the one reader of a product adds to it."""
        readers = self._readers[node.output[0]]
        if node.op_type != "MatMul" or len(node.input) != 2 or len(readers) != 1:
            return None
        (reader,) = readers
        weight = self._builder.known(self._values.get(node.input[1]))
        if reader.op_type != "Add" or weight is None or weight.dim() != 2:
            return None
        others = [name for name in reader.input if name != node.output[0]]
        values = self._builder.known(self._values.get(others[0])) if len(others) == 1 else None
        fits = values is not None and values.shape == weight.shape[1:]
        return Bias(reader, values) if values is not None and fits else None

    def _output(self, name: str) -> Reference:
        value = self._values[name]
        if isinstance(value, Sizes):
            raise ProgramError(
                f"the network returns sizes as {name[:SHOWN]!r}, tensors were wanted"
            )
        return value


def _said(node: NodeProto) -> str:
    return f"in node {node.name[:SHOWN]!r} ({node.op_type[:SHOWN]})"


def _declared(entry: ValueInfoProto) -> tuple[str, tuple[int | str, ...]]:
    """The dtype of an input, and its axes: their lengths, or names of those that are free."""
    shown, tensor = entry.name[:SHOWN], entry.type.tensor_type
    if not entry.type.HasField("tensor_type") or not tensor.HasField("shape"):
        raise ProgramError(f"input {shown!r} is no tensor of a known number of axes")
    if tensor.elem_type not in DTYPES:
        raise ProgramError(f"input {shown!r} has dtype {tensor.elem_type} of ONNX: not read")
    axes = tuple(
        axis.dim_value if axis.HasField("dim_value") else f"{axis.dim_param or place}"
        for place, axis in enumerate(tensor.shape.dim)
    )
    fixed = [length for length in axes if isinstance(length, int)]
    if len(axes) > MAX_AXES or min(fixed, default=0) < 0 or math.prod(fixed) > MAX_VALUES:
        raise ProgramError(
            f"input {shown!r} has {len(axes)} axes of lengths {fixed[:MAX_AXES]}: at most "
            f"{MAX_AXES} axes and {MAX_VALUES} values were wanted"
        )
    return DTYPES[tensor.elem_type], axes
