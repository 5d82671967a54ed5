"""The members of a zip archive."""

import weakref
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from compress.errors import ArchiveError
from compress.zip_directory import ZipLimits, no_surprises, open_zip
from search.data.archive import MAX_MEMBER_BYTES, MAX_MEMBERS, Member, check_member, is_clutter

DIRECTORY_BYTES = 64 << 20
RATIO = 100.0  # pictures are compressed already and hardly deflate


class ZipArchive:
    """See `search.data.archive.Archive`; the checksum of what is read whole is compared."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        limits = ZipLimits(
            entries=MAX_MEMBERS,
            total_bytes=max_bytes,
            entry_bytes=MAX_MEMBER_BYTES,
            directory_bytes=DIRECTORY_BYTES,
            ratio=RATIO,
        )
        with ExitStack() as stack:
            self._zip = stack.enter_context(open_zip(path, limits))
            self.members = [
                Member(entry.filename, entry.file_size, 0)
                for entry in self._zip.infolist()
                if not entry.is_dir() and not is_clutter(entry.filename)
            ]
            for member in self.members:
                check_member(member.name)
            self._close = weakref.finalize(self, stack.pop_all().close)

    def read(self, member: Member, most_bytes: int | None = None) -> bytes:
        try:
            with no_surprises(), self._zip.open(member.name) as file:
                return file.read(-1 if most_bytes is None else most_bytes)
        except ArchiveError as error:
            raise ArchiveError(f"{member.name!r}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
