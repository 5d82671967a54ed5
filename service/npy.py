"""An .npy array as it came, alone or in an archive: its header checked, never a pickle.

The format (numpy.lib.format): a magic number, a version, the length of a header, the header as a
Python literal, the values.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from service.problems import ProblemError

CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class SingleArray:
    """The array of a file."""

    path: Path
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    def chunks(self) -> Iterator[np.ndarray[Any, Any]]:
        """The values, flat, a mebibyte at a time."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            while piece := file.read(CHUNK_BYTES):
                yield np.frombuffer(piece, self.dtype)


def read_array(path: Path, name: str) -> SingleArray:
    """Read and check the header of a file.

    Args:
        path: the file.
        name: what the array is called, since the file does not say.

    Raises:
        ProblemError: malformed-file; unsafe-file if it is an array of objects.
    """
    with path.open("rb") as file:
        shape, dtype = read_header(name, file)
        offset = file.tell()
    check_size(name, shape, dtype, path.stat().st_size - offset)
    return SingleArray(path, name, dtype, shape, offset)


def read_header(name: str, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read a header of version 1.0: of the others numpy reads any length they claim.

    Raises:
        ProblemError: malformed-file.
    """
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


def check_size(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], follows: int) -> None:
    """Refuse objects, and another number of bytes after the header than it declares.

    Raises:
        ProblemError: malformed-file, or unsafe-file.
    """
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
