"""ONNX files for the tests, and what onnxruntime makes of them."""

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def node(kind, inputs, outputs="y", **attributes):
    """A node; names separated by blanks."""
    results = outputs.split(" ")
    name = f"{kind}_{results[0]}"
    return helper.make_node(kind, inputs.split(" "), results, name=name, **attributes)


def model_of(nodes, inputs, weights=None, *, outputs=("y",), opset=17):
    """A model.

    Args:
        nodes: in their order.
        inputs: name -> shape of a float input, or (dtype, shape).
        weights: name -> values.
        outputs: names of floats of any shape.
        opset: version of the operators.
    """
    declared = [
        helper.make_tensor_value_info(
            name, *(shape if isinstance(shape, tuple) else (FLOAT, shape))
        )
        for name, shape in inputs.items()
    ]
    initializers = [
        numpy_helper.from_array(np.asarray(values), name)
        for name, values in (weights or {}).items()
    ]
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(nodes, "graph", declared, results, initializers)
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def saved(model, path):
    """The path of the file that a model, or its bytes, is written to."""
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def run(path, *inputs):
    """What onnxruntime computes: the first result."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    arrays = [np.asarray(x) for x in inputs]
    return torch.from_numpy(session.run(None, dict(zip(names, arrays, strict=True)))[0])
