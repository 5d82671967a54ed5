"""A zip or tar archive of pictures: its members listed and checked, then read one by one.

Without torch and without decoding, so that the service looks at an archive as a job does. Nothing
is ever unpacked to a disk.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol, Self

from compress.errors import ArchiveError, UnsafeArchiveError
from compress.zip_directory import check_name
from search.data.forms import form_of

MAX_MEMBERS: Final = 200_000
MAX_MEMBER_BYTES: Final = 64 << 20

NESTED: Final = (".7z", ".bz2", ".gz", ".npz", ".rar", ".tar", ".tgz", ".xz", ".zip", ".zst")
# What file managers leave behind.
CLUTTER: Final = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")


class Member(NamedTuple):
    """A file of an archive."""

    name: str
    size_bytes: int
    offset: int
    """In a tar, where its content lies."""


class Archive(Protocol):
    """An archive that is open: a context manager, or closed when nobody has it any more."""

    @property
    def members(self) -> Sequence[Member]: ...

    def read(self, member: Member, most_bytes: int | None = None) -> bytes:
        """The content of a member, or its first bytes.

        Raises:
            ArchiveError: it is damaged; the message names it.
        """

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...


def open_archive(path: Path, max_bytes: int) -> Archive:
    """Open a zip or an uncompressed tar whose every member has been looked at.

    Args:
        path: the file; its first bytes tell the two apart.
        max_bytes: what the members may hold together.

    Raises:
        ArchiveError, UnsafeArchiveError, ArchiveSizeError: with the name of the member.
    """
    # Each imports this file, for the members and checks that both share.
    from search.data.tar_archive import TarArchive  # noqa: PLC0415
    from search.data.zip_archive import ZipArchive  # noqa: PLC0415

    match form_of(path):
        case "zip":
            return ZipArchive(path, max_bytes)
        case "tar":
            return TarArchive(path, max_bytes)
    raise ArchiveError("neither a zip nor an uncompressed tar archive of pictures")


def is_clutter(name: str) -> bool:
    """Whether a file manager left this behind."""
    steps = name.split("/")
    return steps[0] in CLUTTER or steps[-1] in CLUTTER or steps[-1].startswith("._")


def check_member(name: str) -> None:
    """Refuse a name that leads elsewhere, and an archive in the archive.

    Raises:
        UnsafeArchiveError: it is one of these.
    """
    check_name(name)
    if name.lower().endswith(NESTED):
        raise UnsafeArchiveError(f"the archive holds another, {name!r}; pictures were wanted")
