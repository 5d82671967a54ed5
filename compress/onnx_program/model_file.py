"""An ONNX file, parsed and checked: bytes in, a model that refers to nothing outside of it out.

The format: ONNX, "Open Neural Network Exchange Intermediate Representation Specification", 2024.
Nothing is read but the file itself: a tensor whose values lie in another file is refused, for its
path may lead anywhere. Importable without torch.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from compress.errors import ProgramError
from compress.program.document import SHOWN
from compress.program.graph import MAX_NODES
from compress.program.specs import MAX_AXES, MAX_VALUES

MAX_BYTES: Final = 2**31 - 1  # of a protobuf message
OPSETS: Final = range(13, 21)
DOMAINS: Final = ("", "ai.onnx")
# What an attribute may hold. The rest are graphs, types and tensors of other layouts.
PLAIN: Final = (
    AttributeProto.FLOAT, AttributeProto.INT, AttributeProto.STRING, AttributeProto.TENSOR,
    AttributeProto.FLOATS, AttributeProto.INTS, AttributeProto.STRINGS,
)  # fmt: skip
# Dtypes of ONNX that networks are made of -> the dtype's name in torch.
DTYPES: Final[Mapping[int, str]] = {
    TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64", TensorProto.FLOAT16: "float16",
    TensorProto.UINT8: "uint8", TensorProto.INT8: "int8", TensorProto.INT16: "int16",
    TensorProto.INT32: "int32", TensorProto.INT64: "int64", TensorProto.BOOL: "bool",
}  # fmt: skip


def read_model(path: str | Path) -> ModelProto:
    """Read and check a file.

    Raises:
        ProgramError: it is no ONNX file or is truncated, has another version, or holds what is
            not read: external data, functions, subgraphs, operators of other domains.
    """
    size = Path(path).stat().st_size
    if not 0 < size <= MAX_BYTES:
        raise ProgramError(f"a file of {size} bytes came, 1 to {MAX_BYTES} were wanted")
    model = ModelProto()
    try:
        model.ParseFromString(Path(path).read_bytes())
    except DecodeError as error:
        raise ProgramError("the file is truncated, or no ONNX file") from error
    _check_version(model)
    if model.functions or model.training_info:
        raise ProgramError(
            "the file holds functions or training steps: export the network again with "
            "torch.onnx.export, after model.eval()"
        )
    _check_graph(model.graph)
    return model


def _check_version(model: ModelProto) -> None:
    versions = [opset.version for opset in model.opset_import if opset.domain in DOMAINS]
    if len(versions) != 1 or versions[0] not in OPSETS:
        raise ProgramError(
            f"operators of version {versions or 'unknown'} came, {OPSETS[0]} to {OPSETS[-1]} were "
            "wanted: export again with opset_version=20"
        )


def _check_graph(graph: GraphProto) -> None:
    if not 0 < len(graph.node) <= MAX_NODES or len(graph.initializer) > MAX_NODES:
        raise ProgramError(
            f"{len(graph.node)} nodes and {len(graph.initializer)} tensors came, 1 to {MAX_NODES} "
            "were wanted"
        )
    if graph.sparse_initializer:
        raise ProgramError("the file holds sparse tensors: plain ones were wanted")
    _check_text(entry.name for entry in (*graph.input, *graph.output))
    for tensor in graph.initializer:
        _check_tensor(tensor)
    for node in graph.node:
        _check_node(node)
    defined: set[str] = set()
    _define(defined, [tensor.name for tensor in graph.initializer])
    # Old files list their tensors among the inputs as well.
    _define(defined, [entry.name for entry in graph.input if entry.name not in defined])
    for node in graph.node:
        for name in node.input:
            if name and name not in defined:
                raise ProgramError(
                    f"node {node.name[:SHOWN]!r} uses {name[:SHOWN]!r} before a node defines it, "
                    "or none does"
                )
        _define(defined, [name for name in node.output if name])
    if not graph.output or any(entry.name not in defined for entry in graph.output):
        raise ProgramError("the network returns nothing, or what no node defines")


def _define(defined: set[str], names: Iterable[str]) -> None:
    for name in names:
        if name in defined:
            raise ProgramError(f"{name[:SHOWN]!r} is defined twice")
        defined.add(name)


def _check_node(node: NodeProto) -> None:
    _check_text((node.name, node.op_type, node.domain, node.overload, *node.input, *node.output))
    _check_text(attribute.name for attribute in node.attribute)
    _check_text(text for entry in node.metadata_props for text in (entry.key, entry.value))
    if not node.output:
        raise ProgramError(f"node {node.name[:SHOWN]!r} returns nothing")
    if node.domain not in DOMAINS or node.overload:
        raise ProgramError(
            f"node {node.name[:SHOWN]!r} calls {node.op_type[:SHOWN]!r} of "
            f"{node.domain[:SHOWN]!r}: operators of ONNX itself were wanted"
        )
    for attribute in node.attribute:
        if attribute.type not in PLAIN or attribute.ref_attr_name:
            raise ProgramError(
                f"node {node.name[:SHOWN]!r} ({node.op_type[:SHOWN]}) holds a subgraph or another "
                f"attribute that is not read, {attribute.name[:SHOWN]!r}: control flow is not read"
            )
        if attribute.type == AttributeProto.TENSOR:
            _check_tensor(attribute.t)


def _check_text(texts: Iterable[str | bytes]) -> None:
    """Protobuf hands out bytes where a text is no UTF-8."""
    if not all(isinstance(text, str) for text in texts):
        raise ProgramError("a name is no UTF-8: the file is damaged")


def _check_tensor(tensor: TensorProto) -> None:
    _check_text((tensor.name,))
    name = tensor.name[:SHOWN]
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise ProgramError(
            f"the values of {name!r} lie in another file, which is never read: export again with "
            "external_data=False"
        )
    if tensor.data_type not in DTYPES or tensor.HasField("segment"):
        raise ProgramError(
            f"{name!r} has dtype {tensor.data_type} of ONNX, or is a part: "
            f"{', '.join(DTYPES.values())} were wanted"
        )
    shape = list(tensor.dims)
    if min(shape, default=0) < 0 or len(shape) > MAX_AXES or math.prod(shape) > MAX_VALUES:
        raise ProgramError(
            f"{name!r} has shape {shape[: MAX_AXES + 1]}: at most {MAX_AXES} axes and "
            f"{MAX_VALUES} values were wanted"
        )
