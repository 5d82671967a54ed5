"""Files changed without regard to what they hold: bytes, and the directories of zip archives."""

import io
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import Final

from benchmarks.forgeries.dice import Dice

Members = dict[str, bytes]

SIGNATURES: Final = {b"PK\3\4": 30, b"PK\1\2": 46, b"PK\5\6": 22, b"PK\6\6": 56}  # and lengths
NAMES: Final = (
    "../../up", "/etc/passwd", "C:\\x", "a\0b", "", "..", "a" * 5000, "a\x1b[2Jb", "data.pkl",
    "model/data/aotinductor/x.so", "archive_format", "more.zip",
)  # fmt: skip


def members(content: bytes) -> Members:
    """Name -> content, in the order of the archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(contents: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of these members, its checksums right."""
    return _packed(list(contents.items()), method)


def flipped(content: bytes, dice: Dice) -> bytes:
    """A few bytes have other values."""
    changed = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 8, 64))):
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def cut(content: bytes, dice: Dice) -> bytes:
    """The end is missing, or a piece from the middle."""
    start, end = sorted(dice.randrange(len(content) + 1) for _ in range(2))
    return content[:start] + (content[end:] if dice.random() < 0.5 else b"")


def grown(content: bytes, dice: Dice) -> bytes:
    """Bytes of its own, of zeros, or of chance stand before, between or behind the others."""
    start, end = sorted(dice.randrange(len(content) + 1) for _ in range(2))
    piece = dice.choice((content[start:end], bytes(dice.randrange(1, 5000)), dice.randbytes(100)))
    place = dice.choice((0, len(content), dice.randrange(len(content))))
    return content[:place] + piece + content[place:]


def recorded(content: bytes, dice: Dice) -> bytes:
    """A number in the records of a zip archive, or in the first bytes of another file, differs."""
    changed = bytearray(content)
    found = {signature: _places(content, signature) for signature in SIGNATURES}
    starts = [(place, SIGNATURES[s]) for s, places in found.items() for place in places] or [(0, 8)]
    for _ in range(dice.choice((1, 1, 2))):
        place, length = dice.choice(starts)
        form = dice.choice(("<B", "<H", "<I", "<Q"))
        at = place + dice.randrange(length)
        value = dice.choice((0, 1, 8, 0xFF, 0xFFFF, 0xFFFFFFFF, len(content), dice.getrandbits(64)))
        if at + struct.calcsize(form) <= len(changed):
            struct.pack_into(form, changed, at, value % 256 ** struct.calcsize(form))
    return bytes(changed)


def rearranged(content: bytes, dice: Dice) -> bytes:
    """Members of a zip archive are renamed, doubled, left out, swapped, added or deflated."""
    entries = list(members(content).items())
    method = zipfile.ZIP_STORED
    place, other = dice.randrange(len(entries)), dice.randrange(len(entries))
    name, inner = entries[place]
    root = name.partition("/")[0]
    match dice.randrange(8):
        case 0:
            entries[place] = (f"{root}/{dice.choice(NAMES)}", inner)
        case 1:
            entries.insert(other, (name, entries[other][1]))
        case 2:
            del entries[place]
        case 3:
            entries[place] = (name, entries[other][1])
        case 4:
            entries.insert(place, (f"{root}/{dice.choice(NAMES)}", dice.randbytes(64)))
        case 5:
            method = zipfile.ZIP_DEFLATED
            entries[place] = (name, bytes(8 << 20))
        case 6:
            entries = [(f"{dice.choice(NAMES)}/{name}", inner) for name, inner in entries]
        case _:
            dice.shuffle(entries)
    return _packed(entries, method)


def _packed(entries: list[tuple[str, bytes]], method: int) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(file, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name or "x", content)
    return file.getvalue()


def _places(content: bytes, signature: bytes) -> list[int]:
    found, place = [], -1
    while (place := content.find(signature, place + 1)) >= 0:
        found.append(place)
    return found


ANY_FILE: Final[Mapping[str, Callable[[bytes, Dice], bytes]]] = {
    "bytes flipped": flipped,
    "cut": cut,
    "grown": grown,
    "numbers of records": recorded,
}
ZIP: Final = {"members rearranged": rearranged}
