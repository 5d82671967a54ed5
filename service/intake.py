"""The weights of a model as they came: looked at without torch, nothing in them is run."""

from pathlib import Path

from service.safetensors_file import read_header

# Statistics that a network keeps beside what it learned; they are no parameters.
BUFFERS = ("running_mean", "running_var")


def count_parameters(path: Path) -> int:
    """Check a file of weights; how many parameters it holds.

    Whether they fit their architecture shows when the network is built, in the job.

    Raises:
        ProblemError: unsafe-file, malformed-file, or not-finite.
    """
    tensors = read_header(path).values()
    floats = [tensor for tensor in tensors if tensor.is_float]
    for tensor in floats:
        tensor.refuse_non_finite()
    return sum(t.size for t in floats if t.name.rpartition(".")[2] not in BUFFERS)
