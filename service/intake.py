"""A network as it came, weights or a program: looked at without torch, nothing in it is run."""

from pathlib import Path

from compress.errors import UnsafeArchiveError
from compress.program.archive import Archive
from compress.program.graph import read_graph
from compress.program.state import read_state
from compress.torch_archive import check_torch_archive
from compress.zip_directory import MAGIC
from service.problems import ProblemError
from service.refusals import refusals
from service.safetensors_file import read_header

# Statistics that a network keeps beside what it learned; they are no parameters.
BUFFERS = ("running_mean", "running_var")


def count_parameters(path: Path) -> int | None:
    """Check a file of weights; how many parameters it holds, None where only a pickle says.

    Whether they fit their architecture shows when the network is built, in the job.

    Args:
        path: a safetensors file, or the archive of a state dict that `torch.save` wrote.

    Raises:
        ProblemError: unsafe-file, malformed-file, or not-finite.
    """
    if _is_zip(path):
        with refusals():
            _check_archive(path)
        return None
    tensors = read_header(path).values()
    floats = [tensor for tensor in tensors if tensor.is_float]
    for tensor in floats:
        tensor.refuse_non_finite()
    return sum(t.size for t in floats if t.name.rpartition(".")[2] not in BUFFERS)


def count_program_parameters(path: Path) -> int:
    """Check a program of torch.export; how many parameters its network holds.

    Whether it runs shows in the job, in a process that is limited.

    Raises:
        ProblemError: unsupported-program, which names the node or the tensor, or
            unsupported-architecture for weights without one.
    """
    if not _is_zip(path):
        raise ProblemError(
            "unsupported-architecture",
            "no architecture came, and the file is no program of torch.export (.pt2): name the "
            "architecture that the weights belong to",
            errors=[{"parameter": "architecture", "in": "query", "detail": "it is missing"}],
        )
    with refusals(), Archive(path) as archive:
        read_graph(archive)
        tensors = read_state(archive).values()
    payloads = {tensor.payload for tensor in tensors if tensor.is_parameter}  # tied ones once
    return sum(payload.values for payload in payloads)


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _check_archive(path: Path) -> None:
    try:
        check_torch_archive(path)
    except UnsafeArchiveError as error:
        raise UnsafeArchiveError(f"the file was not opened: {error}") from error
