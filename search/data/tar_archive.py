"""The members of an uncompressed tar archive (POSIX.1-2001, with the long names of GNU tar)."""

import os
import tarfile
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from compress.errors import ArchiveError, ArchiveSizeError, UnsafeArchiveError
from compress.zip_directory import BoundedFile
from search.data.archive import (
    MAX_MEMBER_BYTES,
    MAX_MEMBERS,
    Member,
    check_member,
    is_clutter,
)

EXTENDED_BYTES: Final = 1 << 20  # the longest header that tarfile may read in one piece


class TarArchive:
    """See `search.data.archive.Archive`; a tar has no checksums of content."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        with ExitStack() as stack:
            self._file = stack.enter_context(BoundedFile(path, EXTENDED_BYTES))
            try:
                self.members = list(_members(self._file, path.stat().st_size, max_bytes))
            except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
                if isinstance(error, ArchiveError):
                    raise
                raise ArchiveError(f"damaged or truncated tar archive: {error}") from error
            self._close = weakref.finalize(self, stack.pop_all().close)

    def read(self, member: Member, most_bytes: int | None = None) -> bytes:
        size = member.size_bytes if most_bytes is None else min(member.size_bytes, most_bytes)
        # Positioned, and past the bound on headers: the size has been checked.
        return os.pread(self._file.fileno(), size, member.offset)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


def _members(file: BoundedFile, size_bytes: int, max_bytes: int) -> Iterator[Member]:
    names, count, last, total = set(), 0, -1, 0
    with tarfile.open(fileobj=file, mode="r:", errors="strict") as tar:
        while (found := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
            count += 1
            if count > MAX_MEMBERS or found.offset <= last:
                raise ArchiveSizeError(f"more than {MAX_MEMBERS} members came, or one without end")
            last = found.offset
            name = found.name
            if is_clutter(name) or found.isdir():
                continue
            _check(found, size_bytes)
            total += found.size
            if total > max_bytes:
                raise ArchiveSizeError(f"{name!r}: more than {max_bytes} bytes up to this member")
            if name in names:
                raise ArchiveError(f"{name!r} comes twice")
            names.add(name)
            yield Member(name, found.size, found.offset_data)
        end = tar.offset
    # tarfile takes a damaged header for the end; the end is a block of zeros, or that of the file.
    file.seek(end)
    if any(file.read(tarfile.BLOCKSIZE)):
        raise ArchiveError(f"the tar archive is damaged at byte {end}")


def _check(found: tarfile.TarInfo, size_bytes: int) -> None:
    name = found.name
    check_member(name)
    if found.type not in tarfile.REGULAR_TYPES or found.issparse() or found.type == b"7":
        raise UnsafeArchiveError(f"{name!r} is a link, a device or no plain file")
    if not 0 <= found.size <= MAX_MEMBER_BYTES:
        raise ArchiveSizeError(
            f"{name!r} has {found.size} bytes, at most {MAX_MEMBER_BYTES} were wanted"
        )
    if found.offset_data + found.size > size_bytes:
        raise ArchiveError(f"{name!r} is truncated")
