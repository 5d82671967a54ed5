"""What kind of file data come in, by its first bytes: names and promises count for nothing."""

from pathlib import Path
from typing import Final, Literal

from compress.zip_directory import MAGIC as ZIP

Form = Literal["npz", "npy", "safetensors", "zip", "tar"]

NPY: Final = b"\x93NUMPY"
TAR: Final = b"ustar"
TAR_AT: Final = 257
NAME_BYTES_AT: Final = 26  # of a zip's first entry: the length of its name, which follows at 30
NAME_AT: Final = 30


def form_of(path: Path) -> Form | None:
    """The form of a file; None for one that is never opened.

    A zip archive whose first entry is an array (.npy) is an npz, another holds pictures.
    """
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(ZIP):
        length = int.from_bytes(start[NAME_BYTES_AT:NAME_AT][:2], "little")
        return "npz" if start[NAME_AT : NAME_AT + length].endswith(b".npy") else "zip"
    if start.startswith(NPY):
        return "npy"
    if start[TAR_AT : TAR_AT + len(TAR)] == TAR:
        return "tar"
    return "safetensors" if start[8:9] == b"{" else None
