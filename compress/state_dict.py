"""Weights as they come in a file: safetensors, or what `torch.save` writes."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from torch import Tensor

from compress.errors import ArchiveError, WeightsError
from compress.load import read_safetensors
from compress.torch_archive import check_torch_archive
from compress.unpickling import to_safetensors
from compress.zip_directory import MAGIC

# What stands before every key where a network was wrapped while it was trained: by DataParallel,
# by torch.compile, by a class of one's own. Each is taken off once.
PREFIXES: Final = ("module.", "_orig_mod.", "model.", "net.", "network.")
OLD_PICKLE: Final = b"\x80"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by the names of the network itself, on the CPU.

    A pickle is opened by a child of little means alone, once its archive has been checked.

    Raises:
        WeightsError: the file is malformed, or holds no state dict.
    """
    with path.open("rb") as file:
        start = file.read(9)
    is_zip = start.startswith(MAGIC)
    if start.startswith(OLD_PICKLE) and start[8:] != b"{":  # whose header may be as long
        raise WeightsError(
            f"{path.name} is a pickle, as torch.save wrote them before torch 1.6: load it with "
            "torch, and save the state dict again"
        )
    try:
        return stripped(_read_pickled(path) if is_zip else read_safetensors(path))
    except (ValueError, ArchiveError) as error:
        raise WeightsError(str(error)) from error


def stripped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors without the prefixes that all keys share."""
    left = list(PREFIXES)
    while tensors and (
        found := next((p for p in left if all(key.startswith(p) for key in tensors)), None)
    ):
        left.remove(found)
        tensors = {key.removeprefix(found): tensor for key, tensor in tensors.items()}
    return dict(tensors)


def _read_pickled(path: Path) -> dict[str, Tensor]:
    check_torch_archive(path)
    with tempfile.TemporaryDirectory(prefix="weights-") as folder:
        target = Path(folder) / "weights"
        to_safetensors(path, target)
        return read_safetensors(target)
