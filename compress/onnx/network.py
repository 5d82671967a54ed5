"""A network as a `.onnx` file, written by torch's exporter and checked in onnxruntime."""

import copy
from pathlib import Path

import torch
from onnx import ModelProto
from torch import Tensor, nn

from compress.artifact import GRAPH
from compress.batch import tensors_of
from compress.errors import ExportError
from compress.export import (
    MAX_BATCH,
    arranged,
    blank_inputs,
    check_parity,
    difference_of,
    exporting,
    first_line,
    free_sizes,
    parity,
)
from compress.onnx.graph import BATCH, INPUT, OPSET, OUTPUT, fix_, strip_
from compress.onnx.session import Session


def export_onnx(model: nn.Module, example: Tensor, path: str | Path) -> float:
    """Write `model` as an ONNX graph of opset 20, in eval mode, for batches of 1 to 4096.

    Inputs that are no images may also have any length, where the network allows it. Batch norms
    are folded into the convolutions before them. Nothing of this machine goes into the file: no
    path, no sample of data.

    Args:
        model: left as it is.
        example: a batch (N, ...) of real inputs, or a `Batch` of several, which the file is tried
            on. Of several the graph's inputs are `input_0`, `input_1` and so on.
        path: of the file, `.onnx`.

    Returns:
        The largest difference between onnxruntime's outputs and torch's, relative to the largest
        output, over random inputs of two batch sizes and over `example`.

    Raises:
        ExportError: the network cannot be exported, or the difference is above 1e-4, or above
            four round-offs of a dtype of 16 bits; there is no file then.
    """
    path = Path(path)
    original = copy.deepcopy(model).cpu()
    inputs = tuple(x.detach().cpu() for x in tensors_of(example))
    graph = exported(original, example)
    strip_(graph)
    try:
        path.write_bytes(graph.SerializeToString())
        runs = Session(path)
        with exporting(original):
            real = difference_of(original(*inputs), runs(*inputs))
            difference = max(parity(original, runs, example), real)
    except Exception as error:
        path.unlink(missing_ok=True)
        raise ExportError(f"onnxruntime refuses the file: {first_line(error)}", GRAPH) from error
    check_parity(difference, inputs[0].dtype, path, GRAPH)
    return difference


def exported(model: nn.Module, example: Tensor, *, optimise: bool = True) -> ModelProto:
    """The graph as torch writes it, with its notes on where each node comes from.

    Args:
        model: on the CPU; left as it is.
        example: a batch (N, ...) of inputs, or a `Batch`; shapes and dtypes alone are read.
        optimise: fold what is constant; else each node is that of one layer, and each weight
            bears its name in the state dict.

    Raises:
        ExportError: the network cannot be exported.
    """
    blank = blank_inputs(example)
    names = [INPUT] if len(blank) == 1 else [f"{INPUT}_{i}" for i in range(len(blank))]
    batch = torch.export.Dim(BATCH, min=1, max=MAX_BATCH)
    try:
        with exporting(model):
            program = torch.onnx.export(
                model,
                blank,
                dynamic_shapes=arranged(model, [free_sizes(x, batch) for x in blank]),
                input_names=names,
                output_names=[OUTPUT],
                opset_version=OPSET,
                optimize=optimise,
                verbose=False,
                dynamo=True,
            )
            assert program is not None
            graph = program.model_proto
    except Exception as error:
        raise ExportError(f"the ONNX export failed: {first_line(error)}", GRAPH) from error
    assert program.exported_program is not None
    ranges = program.exported_program.range_constraints.items()
    fix_(graph, {str(size): int(r.lower) for size, r in ranges if r.lower == r.upper})
    return graph
