"""An ONNX file as a network that can be trained and factorised.

The file is read as data, its nodes are translated to the operators of a program, and from there on
it goes the way of a `.pt2` archive: layers of torch, a trial on tensors without memory, a run.
"""

from pathlib import Path

from torch._subclasses import FakeTensorMode

from compress.onnx_program.model_file import read_model
from compress.onnx_program.translate import translate
from compress.program.assembly import assemble
from compress.program.graph import Graph
from compress.program.steps import Program
from compress.program.trial import MAX_ACTIVATION_BYTES, try_out


def read_onnx(path: str | Path, *, max_activation_bytes: int = MAX_ACTIVATION_BYTES) -> Program:
    """The network in an ONNX file, on the CPU, in eval mode.

    Convolutions, linear and recurrent layers and norms are those of torch, under their original
    names where the file tells them. What the exporter folded stays folded. Where it fixed the
    batch, the batch is free again if the network computes each of its inputs alone.

    A stranger's file is first given to `compress.program.child.try_in_child`.

    Args:
        path: of a file with operators of version 13 to 20, all its values inside.
        max_activation_bytes: that a batch of three may hold at once.

    Raises:
        ProgramError: the file is malformed, or holds what is not read. The message names the
            node or the tensor, and says what to do.
    """
    model, _, _ = read(path, max_activation_bytes)
    return model


def read(path: str | Path, max_activation_bytes: int) -> tuple[Program, Graph, int]:
    """The network, its graph, and the bytes that its trial held."""
    graph, weights = translate(read_model(path))
    mode = FakeTensorMode()
    blank = {name: mode.from_tensor(tensor) for name, tensor in weights.tensors.items()}
    with mode:
        held = try_out(assemble(graph, blank, weights.persistent), graph, max_activation_bytes)
    return assemble(graph, weights.tensors, weights.persistent), graph, held
