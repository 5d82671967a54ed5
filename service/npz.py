"""An .npz file as it came: a zip archive of .npy arrays, read in pieces and without pickle.

Everything is bounded before it is read: the archive's directory, the number of arrays, what they
inflate to, the header of each. The directory alone may claim gigabytes.
"""

import io
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from service.problems import ProblemError

MAX_ENTRIES: Final = 16
MAX_DIRECTORY_BYTES: Final = 4 << 20
CHUNK_BYTES: Final = 1 << 20
ENCRYPTED: Final = 0x1

# What zipfile raises on archives that were made to hurt, besides its own error.
BROKEN: Final = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError,
)  # fmt: skip


class BoundedFile(io.FileIO):
    """A file that never gives much at once: zipfile reads a whole directory in one piece."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = MAX_DIRECTORY_BYTES
        if size > MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"a directory of {size} bytes")
        return super().read(size) or b""


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
        try:
            with _archive(self.path) as archive, archive.open(self.name + ".npy") as file:
                _header(self.name, file)
                while piece := file.read(CHUNK_BYTES):
                    yield np.frombuffer(piece, self.dtype)
        except BROKEN as error:
            raise ProblemError("malformed-file", f"array {self.name!r}: {error}") from error


def read_arrays(path: Path, max_bytes: int) -> dict[str, ZippedArray]:
    """Read and check the archive's directory and the header of every array.

    Args:
        path: the file.
        max_bytes: what all arrays together may inflate to.

    Raises:
        ProblemError: malformed-file; unsafe-file if an entry is no array, or one of objects;
            file-too-large.
    """
    try:
        with _archive(path) as archive:
            entries = archive.infolist()
            _check(entries, max_bytes)
            return {e.filename.removesuffix(".npy"): _array(path, archive, e) for e in entries}
    except BROKEN as error:
        raise ProblemError(
            "malformed-file", f"no .npz file, or a truncated one: {error}"
        ) from error


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with BoundedFile(path) as file, zipfile.ZipFile(file) as archive:
        yield archive


def _check(entries: list[zipfile.ZipInfo], max_bytes: int) -> None:
    if len(entries) > MAX_ENTRIES:
        raise zipfile.BadZipFile(f"{len(entries)} entries, at most {MAX_ENTRIES} were wanted")
    if len({entry.filename for entry in entries}) < len(entries):
        raise zipfile.BadZipFile("a name comes twice")
    for entry in entries:
        if not entry.filename.endswith(".npy"):
            raise ProblemError(
                "unsafe-file",
                f"the archive holds {entry.filename!r}, arrays (.npy) alone were wanted: "
                "write it with numpy.savez",
            )
        if entry.flag_bits & ENCRYPTED:
            raise zipfile.BadZipFile(f"{entry.filename!r} is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(f"{entry.filename!r} is neither stored nor deflated")
    total = sum(entry.file_size for entry in entries)
    if total > max_bytes:
        raise ProblemError(
            "file-too-large",
            f"the arrays inflate to {total} bytes, at most {max_bytes} were wanted",
        )


def _array(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> ZippedArray:
    name = entry.filename.removesuffix(".npy")
    with archive.open(entry) as file:
        shape, dtype = _header(name, file)
        follows = entry.file_size - file.tell()
    if dtype.hasobject:
        raise ProblemError(
            "unsafe-file",
            f"array {name!r} holds Python objects, which only pickle reads; numbers were wanted",
        )
    wanted = math.prod(shape) * dtype.itemsize
    if min(shape, default=1) < 0 or follows != wanted:
        raise ProblemError(
            "malformed-file",
            f"array {name!r}: {follows} bytes came, {wanted} were wanted "
            f"for {dtype} of shape {list(shape)}",
        )
    return ZippedArray(path, name, dtype, shape)


def _header(name: str, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read an .npy header of version 1.0: of the others numpy reads any length they claim."""
    try:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"version {version} came, (1, 0) was wanted")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # numpy evaluates a literal here, which fails in many ways
        raise ProblemError(
            "malformed-file", f"array {name!r} has no .npy header: {error}"
        ) from error
    return shape, dtype
