"""An .npz file as it came: a zip archive of .npy arrays, read in pieces and without pickle.

Everything is bounded before it is read: the archive's directory, the number of arrays, what they
inflate to, the header of each. The directory alone may claim gigabytes.
"""

import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from compress.errors import ArchiveError, UnsafeArchiveError
from compress.zip_directory import ZipLimits, open_zip
from service.npy import check_size, read_header
from service.refusals import refusals

MAX_ENTRIES: Final = 16
MAX_DIRECTORY_BYTES: Final = 4 << 20
CHUNK_BYTES: Final = 1 << 20
MAX_ARRAY_BYTES: Final = 1 << 50  # where the archive has been held to a limit already


@dataclass(frozen=True, slots=True)
class ZippedArray:
    """One array of an archive."""

    path: Path
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def chunks(self) -> Iterator[np.ndarray[Any, Any]]:
        """The values, flat, a mebibyte at a time; in the end zipfile compares the CRC.

        Raises:
            ProblemError: malformed-file.
        """
        with refusals():
            try:
                with _archive(self.path) as archive, archive.open(self.name + ".npy") as file:
                    read_header(self.name, file)
                    while piece := file.read(CHUNK_BYTES):
                        yield np.frombuffer(piece, self.dtype)
            except ArchiveError as error:
                raise ArchiveError(f"array {self.name!r}: {error}") from error


def read_arrays(path: Path, max_bytes: int) -> dict[str, ZippedArray]:
    """Read and check the archive's directory and the header of every array.

    Args:
        path: the file.
        max_bytes: what all arrays together may inflate to.

    Raises:
        ProblemError: malformed-file; unsafe-file if an entry is no array, or one of objects;
            file-too-large.
    """
    with refusals(), _archive(path, max_bytes) as archive:
        entries = archive.infolist()
        for entry in entries:
            if not entry.filename.endswith(".npy"):
                raise UnsafeArchiveError(
                    f"the archive holds {entry.filename!r}, arrays (.npy) alone were wanted: "
                    "write it with numpy.savez"
                )
        return {e.filename.removesuffix(".npy"): _array(path, archive, e) for e in entries}


def _archive(
    path: Path, max_bytes: int = MAX_ARRAY_BYTES
) -> AbstractContextManager[zipfile.ZipFile]:
    limits = ZipLimits(
        entries=MAX_ENTRIES,
        total_bytes=max_bytes,
        entry_bytes=max_bytes,
        directory_bytes=MAX_DIRECTORY_BYTES,
    )
    return open_zip(path, limits)


def _array(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> ZippedArray:
    name = entry.filename.removesuffix(".npy")
    with archive.open(entry) as file:
        shape, dtype = read_header(name, file)
        check_size(name, shape, dtype, entry.file_size - file.tell())
    return ZippedArray(path, name, dtype, shape)
