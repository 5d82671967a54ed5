"""A zip archive whose members are stored as they are, its directory checked before any is read.

Own code, because Python's `zipfile` looks for a directory wherever one may stand and accepts
anything before the first member: of a truncated archive it reads the archive that lies inside.
It also holds the whole directory in memory before anyone can count it.

The format: PKWARE, ".ZIP File Format Specification", 6.3.10, 2022; archives below 4 GiB need its
plain records alone. Importable without torch.
"""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from compress.errors import ProgramError

MAX_BYTES: Final = 0xFFFF_FFFE  # above it, sizes and places stand in the records of zip64
MAX_MEMBERS: Final = 20_000
MAX_DIRECTORY_BYTES: Final = 16 << 20

# Signature, numbers of two disks, members on this disk and on all, size and place of the
# directory, length of a comment.
END: Final = struct.Struct("<4s4H2IH")
# Signature, two versions, flags, method, time, date, CRC, two sizes, lengths of name, extra
# field and comment, disk, two kinds of attributes, place of the local header.
LISTED: Final = struct.Struct("<4s6H3I5H2I")
# Signature, version, flags, method, time, date, CRC, two sizes, lengths of name and extra field.
LOCAL: Final = struct.Struct("<4s5H3I2H")
ZIP64_BYTES: Final = 56 + 20  # two records that torch writes before the end, whatever the size
DESCRIPTOR_BYTES: Final = 24  # at most: CRC and sizes once more, behind a member

ENCRYPTED: Final = 1  # of the flags


@dataclass(frozen=True, slots=True)
class Member:
    """Where a member lies in the file."""

    name: str
    header: int
    start: int
    size: int
    crc: int


class Archive:
    """The members of an archive by name, the folder that holds all of them left out.

    Raises:
        ProgramError: no zip archive, a member that is compressed or encrypted, a name that leads
            elsewhere or comes twice, members that overlap, or bytes that belong to none.
    """

    def __init__(self, path: str | Path) -> None:
        self.size = Path(path).stat().st_size
        self._file = Path(path).open("rb")  # noqa: SIM115, closed by __exit__
        try:
            self.members = self._directory()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self.members

    def read(self, name: str, max_bytes: int = MAX_BYTES) -> bytearray:
        """The bytes of a member, which are those that its CRC was taken of.

        Raises:
            ProgramError: no such member, one of more than `max_bytes`, or bytes that changed.
        """
        if name not in self.members:
            raise ProgramError(f"the archive holds no {name!r}, as torch.export.save writes it")
        member = self.members[name]
        if member.size > max_bytes:
            raise ProgramError(f"{name!r} has {member.size} bytes, at most {max_bytes} were wanted")
        content = bytearray(member.size)
        self.read_into(name, content)
        return content

    def read_into(self, name: str, buffer: bytearray | memoryview) -> None:
        """Fill a buffer of the size of a member with its bytes.

        Raises:
            ProgramError: bytes that changed.
        """
        member = self.members[name]
        self._file.seek(member.start)
        self._file.readinto(buffer)
        if zlib.crc32(buffer) != member.crc:
            raise ProgramError(f"{name!r} is not what was written, its CRC differs: send it again")

    def _directory(self) -> dict[str, Member]:
        count, size, place = self._end()
        listed, position = self._at(place, size), 0
        members = []
        for _ in range(count):
            member, position = self._member(listed, position)
            members.append(member)
        if position != size:
            raise ProgramError(f"the directory has {size} bytes, its entries fill {position}")
        _refuse_gaps(members, place)
        return _without_root(members)

    def _end(self) -> tuple[int, int, int]:
        """How many members there are, and the size and the place of their directory."""
        if not END.size <= self.size <= MAX_BYTES:
            raise ProgramError(
                f"a file of {self.size} bytes came, {END.size} to {MAX_BYTES} were wanted"
            )
        last = self._at(self.size - END.size, END.size)
        signature, disk, first, here, count, size, place, comment = END.unpack(last)
        if signature != b"PK\5\6" or comment:
            raise ProgramError(
                "the file does not end as a zip archive does: it is truncated, or is none of "
                "those that torch.export.save writes"
            )
        if disk or first or here != count or not 1 <= count <= MAX_MEMBERS:
            raise ProgramError(f"{count} members came, 1 to {MAX_MEMBERS} in one file were wanted")
        if size > MAX_DIRECTORY_BYTES:
            raise ProgramError(
                f"a directory of {size} bytes came, at most {MAX_DIRECTORY_BYTES} were wanted"
            )
        between = self.size - END.size - place - size
        if between not in (0, ZIP64_BYTES):
            raise ProgramError(f"{between} bytes stand between the directory and the file's end")
        return count, size, place

    def _member(self, listed: bytes, position: int) -> tuple[Member, int]:
        """The member whose entry begins at `position` of the directory, and where that ends."""
        entry = listed[position : position + LISTED.size]
        if len(entry) < LISTED.size:
            raise ProgramError(f"the directory is cut short at its byte {position}")
        (signature, _, _, flags, method, _, _, crc, packed, size, *lengths, disk, _, _, header) = (
            LISTED.unpack(entry)
        )
        name = listed[position + LISTED.size :][: lengths[0]]
        if signature != b"PK\1\2" or disk:
            raise ProgramError(f"the directory is malformed at its byte {position}")
        path = _checked(name)
        if method or flags & ENCRYPTED or packed != size:
            raise ProgramError(f"{path!r} is compressed or encrypted: its bytes were wanted plain")
        local = self._at(header, LOCAL.size)
        if len(local) < LOCAL.size:
            raise ProgramError(f"{path!r} lies behind the end of the file")
        signature, _, flags, method, *_, length, extra = LOCAL.unpack(local)
        start = header + LOCAL.size + length + extra
        repeated = self._at(header + LOCAL.size, length)
        if signature != b"PK\3\4" or method or flags & ENCRYPTED or repeated != name:
            raise ProgramError(f"{path!r} has one entry in the directory and another before it")
        return Member(path, header, start, size, crc), position + LISTED.size + sum(lengths)

    def _at(self, place: int, size: int) -> bytes:
        self._file.seek(place)
        return self._file.read(size)


def _checked(name: bytes) -> str:
    """The path, plain and relative: nothing is unpacked, but neither shall anyone be surprised."""
    path = name.decode("utf-8", "replace")
    if not path.isprintable() or "\\" in path or {"", ".", ".."} & {*path.split("/")}:
        raise ProgramError(f"a member is named {path[:80]!r}: a plain relative path was wanted")
    return path


def _refuse_gaps(members: list[Member], directory: int) -> None:
    """The members fill the file in a row, from its first byte to the directory."""
    end, slack = 0, 0
    for member in sorted(members, key=lambda member: member.header):
        if not end <= member.header <= end + slack:
            raise ProgramError(
                f"{member.name!r} begins at byte {member.header}, {end} was wanted: members "
                "overlap, or something stands between them"
            )
        end, slack = member.start + member.size, DESCRIPTOR_BYTES
    if not end <= directory <= end + slack:
        raise ProgramError(f"the members end at byte {end}, the directory begins at {directory}")


def _without_root(members: list[Member]) -> dict[str, Member]:
    found: dict[str, Member] = {}
    (root, *others) = {member.name.partition("/")[0] for member in members}
    if others:
        raise ProgramError(f"{1 + len(others)} folders came, one that holds everything was wanted")
    for member in members:
        name = member.name.removeprefix(f"{root}/")
        if name in found:
            raise ProgramError(f"{name!r} comes twice: each reader may believe another one")
        found[name] = member
    return found
