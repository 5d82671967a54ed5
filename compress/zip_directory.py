"""A zip archive from a stranger: its directory checked before anything in it is inflated.

The format (PKWARE, APPNOTE.TXT, 2022) lets an archive claim anything: gigabytes from a kilobyte, a
name twice, entries that share their bytes. What is inflated later is held to what is said here:
zipfile stops at the size that the directory gives, and compares the checksum at the end.
"""

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from compress.errors import ArchiveError, ArchiveSizeError, UnsafeArchiveError

MAGIC: Final = b"PK\x03\x04"
ENCRYPTED: Final = 0x1
SMALL_BYTES: Final = 1 << 20  # a file that inflates to less is no bomb, whatever its ratio
END_BYTES: Final = 22  # of the record that closes an archive without a comment
WIDE_END_BYTES: Final = 56 + 20  # of zip64's record and its locator, which stand before that

# What zipfile raises on archives that were made to hurt, besides its own error.
BROKEN: Final = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError,
    OSError, OverflowError,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipLimits:
    """What an archive may hold."""

    entries: int
    total_bytes: int
    """Of all entries together, inflated."""
    entry_bytes: int
    directory_bytes: int = 4 << 20
    ratio: float = 1100.0
    """Inflated by deflated, of a large entry; DEFLATE itself reaches 1032."""


class BoundedFile(io.FileIO):
    """A file that never gives much at once: zipfile reads a whole directory in one piece."""

    def __init__(self, path: Path, most_bytes: int) -> None:
        super().__init__(path)
        self._most_bytes = most_bytes

    def read(self, size: int | None = -1, /) -> bytes:
        """At most `most_bytes` of the rest.

        Raises:
            ArchiveError: more was asked for.
        """
        if size is None or size < 0:
            size = self._most_bytes
        if size > self._most_bytes:
            raise ArchiveError(
                f"a directory of {size} bytes came, at most {self._most_bytes} were wanted"
            )
        return super().read(size) or b""


@contextmanager
def open_zip(path: Path, limits: ZipLimits) -> Iterator[zipfile.ZipFile]:
    """Open an archive whose directory has been checked.

    Names are unique, lead nowhere else and belong to files or folders; nothing is encrypted,
    linked, or claims more than the limits. Whatever breaks while it is read is an `ArchiveError`.

    Raises:
        ArchiveError, UnsafeArchiveError, ArchiveSizeError: with the name of the entry.
    """
    with (
        no_surprises(),
        BoundedFile(path, limits.directory_bytes) as file,
        zipfile.ZipFile(file) as archive,
    ):
        _check(archive.infolist(), limits, path.stat().st_size)
        yield archive


@contextmanager
def no_surprises() -> Iterator[None]:
    """Turn what zipfile raises into an `ArchiveError`."""
    try:
        yield
    except ArchiveError:
        raise
    except BROKEN as error:
        raise ArchiveError(f"damaged or truncated zip archive: {error}") from error


def check_exact(path: Path) -> None:
    """Refuse an archive with anything before its first entry or after its end.

    A second parser, torch's own, may else see another archive in the same bytes.

    Raises:
        ArchiveError: there is something.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
        file.seek(max(0, size - END_BYTES - WIDE_END_BYTES))
        ends = file.read()
    wide, narrow = ends[:-END_BYTES], ends[-END_BYTES:]
    if start == MAGIC and narrow.startswith(b"PK\x05\x06") and narrow.endswith(b"\0\0"):
        length, offset = struct.unpack("<II", narrow[12:20])
        if offset + length == size - END_BYTES:
            return
        if wide.startswith(b"PK\x06\x06"):  # zip64, whose numbers count
            length, offset = struct.unpack("<QQ", wide[40:56])
            if offset + length == size - END_BYTES - WIDE_END_BYTES:
                return
    raise ArchiveError("bytes before or after the zip archive, or a truncated one")


def check_name(name: str) -> None:
    """Refuse a name that leads out of a folder, or that no terminal should be shown.

    Raises:
        UnsafeArchiveError: it does.
    """
    steps = name.rstrip("/").split("/")
    if (
        not name.isprintable()
        or "\\" in name
        or ":" in steps[0]
        or any(step in ("", ".", "..") for step in steps)
    ):
        raise UnsafeArchiveError(
            f"the archive holds {name!r}: plain relative names were wanted, with / between folders"
        )


def _check(entries: list[zipfile.ZipInfo], limits: ZipLimits, size_bytes: int) -> None:
    if len(entries) > limits.entries:
        raise ArchiveError(
            f"an archive of {len(entries)} entries came, at most {limits.entries} were wanted"
        )
    names = set()
    for entry in entries:
        _check_entry(entry, limits)
        if entry.filename in names:
            raise ArchiveError(f"{entry.filename!r} comes twice")
        names.add(entry.filename)
    total = sum(entry.file_size for entry in entries)
    if total > limits.total_bytes:
        raise ArchiveSizeError(
            f"the entries inflate to {total} bytes, at most {limits.total_bytes} were wanted"
        )
    if sum(entry.compress_size for entry in entries) > size_bytes:
        raise UnsafeArchiveError("the entries share their bytes, each its own were wanted")


def _check_entry(entry: zipfile.ZipInfo, limits: ZipLimits) -> None:
    name = entry.filename
    check_name(name)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UnsafeArchiveError(f"{name!r} is a link or a device, files alone were wanted")
    if entry.flag_bits & ENCRYPTED:
        raise ArchiveError(f"{name!r} is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveError(f"{name!r} is neither stored nor deflated")
    if entry.file_size > limits.entry_bytes:
        raise ArchiveSizeError(
            f"{name!r} inflates to {entry.file_size} bytes, "
            f"at most {limits.entry_bytes} were wanted"
        )
    if entry.file_size > max(SMALL_BYTES, limits.ratio * entry.compress_size):
        raise UnsafeArchiveError(
            f"{name!r} inflates {entry.compress_size} bytes to {entry.file_size}, "
            f"{limits.ratio:g} times as many at most were wanted"
        )
