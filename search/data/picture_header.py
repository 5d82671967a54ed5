"""The kind and size of a picture by its first bytes: nothing is decoded, no library is asked.

JPEG: ITU-T T.81, annex B. PNG: RFC 2083, section 3. WebP: RFC 9649, section 2.
"""

import struct
from typing import Final, NamedTuple

from search.data.transforms import MAX_PIXELS
from search.errors import DataError

HEAD_BYTES: Final = 1 << 16  # enough for all headers but a JPEG's with a long profile
LONG_HEAD_BYTES: Final = 4 << 20
EXTENSIONS: Final = (".jpeg", ".jpg", ".png", ".webp")


class PictureHeader(NamedTuple):
    """What a picture says of itself."""

    kind: str
    """JPEG, PNG or WEBP, as Pillow calls them."""
    height: int
    width: int


class ShortHeadError(DataError):
    """The header is longer than the bytes that came."""


def read_header(name: str, head: bytes) -> PictureHeader:
    """Read the header of a picture.

    Args:
        name: of the file, for errors.
        head: its first bytes.

    Raises:
        DataError: it is of another kind, damaged, empty or too large.
        ShortHeadError: more bytes would have told.
    """
    try:
        header = _read(head)
    except (struct.error, IndexError) as error:
        raise ShortHeadError(f"{name!r} is truncated: its header is not all there") from error
    if header is None:
        raise DataError(f"{name!r} is no JPEG, PNG or WebP picture, whatever its name says")
    if not 0 < header.height * header.width <= MAX_PIXELS:
        raise DataError(
            f"{name!r} has {header.height} x {header.width} pixels, "
            f"1 to {MAX_PIXELS} in all were wanted"
        )
    return header


def _read(head: bytes) -> PictureHeader | None:
    if head.startswith(b"\xff\xd8\xff"):
        return _jpeg(head)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        length, kind, width, height = struct.unpack_from(">I4sII", head, 8)
        return PictureHeader("PNG", height, width) if (length, kind) == (13, b"IHDR") else None
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _webp(head)
    return None


def _jpeg(head: bytes) -> PictureHeader | None:
    """Step from marker to marker until the frame, which has the size."""
    at = 2
    while head[at] == 0xFF:
        marker = head[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", head, at + 5)
            return PictureHeader("JPEG", height, width)
        elif 0xD0 <= marker <= 0xD9 or marker == 0x01:
            return None  # none of these stands before the frame
        else:
            (length,) = struct.unpack_from(">H", head, at + 2)
            at += 2 + max(2, length)
    return None


def _webp(head: bytes) -> PictureHeader | None:
    match head[12:16]:
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", head, 26)
            return PictureHeader("WEBP", height & 0x3FFF, width & 0x3FFF)
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", head, 21)
            return PictureHeader("WEBP", (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
        case b"VP8X":
            low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", head, 24)
            height, width = low_height | high_height << 16, low_width | high_width << 16
            return PictureHeader("WEBP", height + 1, width + 1)
    return None
