"""A `.pt2` archive of torch.export as a network that can be trained and factorised.

Nothing in the archive is run: it is read as data, tried on tensors without memory, and only then
are its tensors read. `torch.export.load` runs what a crafted archive holds, in six ways.
"""

from pathlib import Path

from torch._subclasses import FakeTensorMode

from compress.errors import ProgramError
from compress.program.archive import Archive
from compress.program.assembly import assemble
from compress.program.child import ProgramReport
from compress.program.graph import Graph, read_graph
from compress.program.state import read_state
from compress.program.steps import Program
from compress.program.tensors import blank, load
from compress.program.trial import MAX_ACTIVATION_BYTES, run, try_out
from compress.zip_directory import MAGIC


def read_program(path: str | Path, *, max_activation_bytes: int = MAX_ACTIVATION_BYTES) -> Program:
    """The network in an archive, on the CPU, in eval mode.

    Its layers are those of torch under their original names, and its state dict has the keys of
    the original's. What was exported in train mode follows `.train()` and `.eval()` again.

    A stranger's archive is first given to `compress.program.child.try_in_child`: memory is capped
    here as well, but only a process can be stopped.

    Args:
        path: of a file that torch.export.save of torch 2.11 to 2.15 wrote.
        max_activation_bytes: that a batch of three may hold at once.

    Raises:
        ProgramError: the archive is malformed, or holds what is not read. The message names the
            node or the tensor, and says what to do.
    """
    model, _, _ = _read(path, max_activation_bytes)
    return model


def read_network(path: str | Path) -> Program:
    """The network in an archive of torch.export, or in an ONNX file.

    Raises:
        ProgramError: as `read_program`, or as `read_onnx`.
    """
    model, _, _ = _read_any(path)
    return model


def examine(path: str | Path) -> ProgramReport:
    """Read the network in a file and run it, to be called in a process with limits.

    Raises:
        ProgramError: as `read_program`; or the network fails, or its outputs are not finite or
            depend on the rest of the batch.
    """
    model, graph, activation_bytes = _read_any(path)
    first, outputs = run(model, graph)
    return ProgramReport(
        tuple(first.shape),
        graph.spec(graph.inputs[0]).dtype,
        tuple(outputs.shape),
        activation_bytes,
    )


def _read_any(path: str | Path) -> tuple[Program, Graph, int]:
    """As `_read`; what does not begin as a zip archive does is ONNX."""
    with Path(path).open("rb") as file:
        is_archive = file.read(len(MAGIC)) == MAGIC
    if is_archive:
        return _read(path, MAX_ACTIVATION_BYTES)
    try:
        from compress.onnx_program import read as onnx_file  # noqa: PLC0415, an extra
    except ModuleNotFoundError as error:
        raise ProgramError(
            f"an ONNX file is read with the package {error.name!r}: install it"
        ) from error
    return onnx_file.read(path, MAX_ACTIVATION_BYTES)


def _read(path: str | Path, max_activation_bytes: int) -> tuple[Program, Graph, int]:
    """The network, its graph, and the bytes that its trial held."""
    with Archive(path) as archive:
        graph, state = read_graph(archive), read_state(archive)
        persistent = {name for name, stored in state.items() if stored.persistent}
        with FakeTensorMode():
            fake = assemble(graph, blank(state), persistent)
            held = try_out(fake, graph, max_activation_bytes)
        return assemble(graph, load(archive, state), persistent), graph, held
