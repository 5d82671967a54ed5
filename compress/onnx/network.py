"""A network as a `.onnx` file, written by torch's exporter and checked in onnxruntime."""

import copy
from pathlib import Path
from typing import Any

import torch
from onnx import ModelProto
from torch import Tensor, nn

from compress.artifact import GRAPH
from compress.errors import ExportError
from compress.export import (
    MAX_BATCH,
    check_parity,
    difference_of,
    exporting,
    first_line,
    parity,
)
from compress.onnx.graph import BATCH, INPUT, OPSET, OUTPUT, strip_
from compress.onnx.session import Session

IMAGES = 4  # axes of a batch of images


def export_onnx(model: nn.Module, example: Tensor, path: str | Path) -> float:
    """Write `model` as an ONNX graph of opset 20, in eval mode, for batches of 1 to 4096.

    Inputs that are no images may also have any length, where the network allows it. Batch norms
    are folded into the convolutions before them. Nothing of this machine goes into the file: no
    path, no sample of data.

    Args:
        model: left as it is.
        example: a batch (N, ...) of real inputs, which the file is tried on.
        path: of the file, `.onnx`.

    Returns:
        The largest difference between onnxruntime's outputs and torch's, relative to the largest
        output, over random inputs of two batch sizes and over `example`.

    Raises:
        ExportError: the network cannot be exported, or the difference is above 1e-4, or above
            four round-offs of a dtype of 16 bits; there is no file then.
    """
    path = Path(path)
    original, example = copy.deepcopy(model).cpu(), example.detach().cpu()
    graph = exported(original, example)
    strip_(graph)
    try:
        path.write_bytes(graph.SerializeToString())
        runs = Session(path)
        with exporting(original):
            real = difference_of(original(example), runs(example))
            difference = max(parity(original, runs, example), real)
    except Exception as error:
        path.unlink(missing_ok=True)
        raise ExportError(f"onnxruntime refuses the file: {first_line(error)}", GRAPH) from error
    check_parity(difference, example.dtype, path, GRAPH)
    return difference


def exported(model: nn.Module, example: Tensor, *, optimise: bool = True) -> ModelProto:
    """The graph as torch writes it, with its notes on where each node comes from.

    Args:
        model: on the CPU; left as it is.
        example: a batch (N, ...) of inputs; its shape and dtype alone are read.
        optimise: fold what is constant; else each node is that of one layer, and each weight
            bears its name in the state dict.

    Raises:
        ExportError: the network cannot be exported.
    """
    zeros = torch.zeros(2, *example.shape[1:], dtype=example.dtype)
    sizes: dict[int, Any] = {0: torch.export.Dim(BATCH, min=1, max=MAX_BATCH)}
    if example.ndim < IMAGES:
        sizes |= dict.fromkeys(range(1, example.ndim), torch.export.Dim.AUTO)
    try:
        with exporting(model):
            program = torch.onnx.export(
                model,
                (zeros,),
                dynamic_shapes=(sizes,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                optimize=optimise,
                verbose=False,
                dynamo=True,
            )
            assert program is not None
            return program.model_proto
    except Exception as error:
        raise ExportError(f"the ONNX export failed: {first_line(error)}", GRAPH) from error
