"""A safetensors file as it came: its header checked, its tensors read in pieces.

The format (github.com/huggingface/safetensors): eight bytes with the length of a header, the
header as JSON, the tensors one after another. Nothing in it can run.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError, safe_open

from service.problems import ProblemError

MAX_HEADER_BYTES: Final = 16 << 20
MAX_TENSORS: Final = 65_536
CHUNK_BYTES: Final = 1 << 20

# BF16 is read as its bits: numpy has no such type.
DTYPES: Final = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1", "U8": "<u1", "BOOL": "?",
}  # fmt: skip
EXPONENTS: Final = {"F64": 0x7FF << 52, "F32": 0xFF << 23, "F16": 0x1F << 10, "BF16": 0xFF << 7}

# What else may arrive under the name of a model, by its first bytes.
SIGNATURES: Final = {
    b"PK": "a zip archive, such as torch.save writes",
    b"\x80": "a pickle",
    b"\x1f\x8b": "a gzip file",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "an .npy array",
    b"{": "JSON: mark it as such (Content-Type: application/json)",
    b"--": "a multipart form: send the file alone, as curl --data-binary @FILE does",
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file, and where it lies."""

    path: Path
    name: str
    kind: str
    """The format's name of the type, a key of `DTYPES`."""
    shape: tuple[int, ...]
    offset: int

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(DTYPES[self.kind])

    @property
    def is_float(self) -> bool:
        return self.kind in EXPONENTS

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def chunks(self) -> Iterator[np.ndarray[Any, Any]]:
        """The values in order, flat, a mebibyte at a time."""
        step = CHUNK_BYTES // self.dtype.itemsize
        with self.path.open("rb") as file:
            file.seek(self.offset)
            for start in range(0, self.size, step):
                yield np.fromfile(file, self.dtype, min(step, self.size - start))

    def refuse_non_finite(self) -> None:
        """Look for NaN and infinity: all bits of the exponent set.

        Raises:
            ProblemError: not-finite, with the tensor's name and the first such place.
        """
        exponent = EXPONENTS[self.kind]
        start = 0
        for chunk in self.chunks():
            bits = chunk.view(f"<u{chunk.itemsize}")
            bad = np.flatnonzero((bits & exponent) == exponent)
            if len(bad):
                place = [int(i) for i in np.unravel_index(start + int(bad[0]), self.shape)]
                raise ProblemError(
                    "not-finite",
                    f"tensor {self.name!r} holds NaN or infinity, first at {place}; "
                    "finite values were wanted: train again or mend the file",
                )
            start += len(chunk)


def looks_like_safetensors(start: bytes) -> bool:
    """Whether a file with these first bytes claims to be one: its header opens with a brace."""
    return start[8:9] == b"{"


def refusal_of(start: bytes, wanted: str) -> ProblemError:
    """The answer to a file of another kind, which nobody opens to find out more."""
    if len(start) < 9:
        return ProblemError("malformed-file", f"{len(start)} bytes came, {wanted} was wanted")
    came = next((SIGNATURES[s] for s in SIGNATURES if start.startswith(s)), "something else")
    return ProblemError("unsafe-file", f"the file was not opened: {came} came, {wanted} was wanted")


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Read and check the header; the library checks that the tensors fill the file exactly.

    Raises:
        ProblemError: malformed-file, or unsafe-file for a file of another kind.
    """
    with path.open("rb") as file:
        start = file.read(9)
        if not looks_like_safetensors(start):
            raise refusal_of(
                start,
                "a safetensors file (safetensors.torch.save_file) or a state dict of torch.save",
            )
        length = int.from_bytes(start[:8], "little")
        if length > MAX_HEADER_BYTES:
            raise ProblemError(
                "malformed-file",
                f"a header of {length} bytes came, at most {MAX_HEADER_BYTES} were wanted",
            )
        file.seek(8)
        header = file.read(length)
    if len(header) < length:
        raise ProblemError(
            "malformed-file",
            f"the file is truncated: its header alone has {length} bytes, {len(header)} came",
        )
    entries = _entries(header)
    try:
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        raise ProblemError(
            "malformed-file", f"no safetensors file, or a truncated one: {error}"
        ) from error
    return {name: _tensor(path, name, entry, 8 + length) for name, entry in entries.items()}


def _entries(header: bytes) -> dict[str, Any]:
    """The header's JSON without its metadata, counted before the library builds anything of it."""
    try:
        document = json.loads(header, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ProblemError("malformed-file", f"the header is no JSON: {error}") from error
    document.pop("__metadata__", None)
    if not 1 <= len(document) <= MAX_TENSORS:
        raise ProblemError(
            "malformed-file", f"{len(document)} tensors came, 1 to {MAX_TENSORS} were wanted"
        )
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that comes twice: two readers may each believe another one."""
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a name comes twice")
    return document


def _tensor(path: Path, name: str, entry: dict[str, Any], data: int) -> StoredTensor:
    kind, shape = entry["dtype"], tuple(entry["shape"])
    if kind not in DTYPES:
        raise ProblemError(
            "malformed-file",
            f"tensor {name!r}: type {kind} came, one of {', '.join(DTYPES)} was wanted",
        )
    if 0 in shape:
        raise ProblemError(
            "malformed-file", f"tensor {name!r}: shape {list(shape)} came, values were wanted"
        )
    return StoredTensor(path, name, kind, shape, data + entry["data_offsets"][0])
