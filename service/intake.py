"""The weights of a model as they came: looked at without torch, nothing in them is run."""

from pathlib import Path

from compress.errors import UnsafeArchiveError
from compress.torch_archive import check_torch_archive
from compress.zip_directory import MAGIC
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
    with path.open("rb") as file:
        is_zip = file.read(len(MAGIC)) == MAGIC
    if is_zip:
        with refusals():
            _check_archive(path)
        return None
    tensors = read_header(path).values()
    floats = [tensor for tensor in tensors if tensor.is_float]
    for tensor in floats:
        tensor.refuse_non_finite()
    return sum(t.size for t in floats if t.name.rpartition(".")[2] not in BUFFERS)


def _check_archive(path: Path) -> None:
    try:
        check_torch_archive(path)
    except UnsafeArchiveError as error:
        raise UnsafeArchiveError(f"the file was not opened: {error}") from error
