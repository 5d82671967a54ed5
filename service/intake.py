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
from service.safetensors_file import looks_like_safetensors, read_header

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


def count_program_parameters(path: Path) -> int | None:
    """Check a program; how many parameters its network holds, None of an ONNX file.

    Whether it runs shows in the job, in a process that is limited.

    Args:
        path: an archive of torch.export (.pt2), or an ONNX file.

    Raises:
        ProblemError: unsupported-program, which names the node or the tensor, or
            unsupported-architecture for weights without one.
    """
    if _is_zip(path):
        with refusals(), Archive(path) as archive:
            read_graph(archive)
            tensors = read_state(archive).values()
        payloads = {tensor.payload for tensor in tensors if tensor.is_parameter}  # tied ones once
        return sum(payload.values for payload in payloads)
    if not _is_onnx(path):
        raise ProblemError(
            "unsupported-architecture",
            "no architecture came, and the file is no program of torch.export (.pt2) or ONNX: name "
            "the architecture that the weights belong to",
            errors=[{"parameter": "architecture", "in": "query", "detail": "it is missing"}],
        )
    from compress.onnx_program.model_file import read_model  # noqa: PLC0415, slow to import

    with refusals():
        read_model(path)
    return None


def _is_onnx(path: Path) -> bool:
    """By the tag of its version, which safetensors may begin with too, but for their brace."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[:1] == b"\x08" and not looks_like_safetensors(start)


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _check_archive(path: Path) -> None:
    try:
        check_torch_archive(path)
    except UnsafeArchiveError as error:
        raise UnsafeArchiveError(f"the file was not opened: {error}") from error
