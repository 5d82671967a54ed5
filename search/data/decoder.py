"""Pictures decoded by a process of their own, so that one that breaks a decoder hurts nothing else.

The process, of `search.data.decoding`, is asked for one picture at a time. It is handed bytes and
hands back bytes: it is told no file, may write none, and has neither torch nor our settings.
"""

import struct
import weakref
from contextlib import suppress
from subprocess import Popen
from threading import Lock
from typing import Final

from compress.confinement import start_confined
from search.data.picture_header import PictureHeader
from search.data.picture_shapes import COLOURS
from search.errors import DataError

MEMORY_BYTES: Final = 2 << 30  # of one process: the largest picture takes 1.5 GB
SECONDS: Final = 60.0  # of processor time, of one picture
MESSAGE_BYTES: Final = 1000

REQUEST: Final = struct.Struct("<4sIIQ")  # kind, height, width; bytes of the picture, that follow
ANSWER: Final = struct.Struct("<?Q")  # whether it is decoded; bytes of pixels or of the reason why

Child = Popen[bytes]


class Decoder:
    """A process that decodes pictures, started when the first comes, ended with this object."""

    def __init__(self) -> None:
        self._child: Child | None = None
        self._lock = Lock()

    def decode(self, name: str, header: PictureHeader, content: bytes) -> bytearray:
        """The pixels of a picture, (H, W, 3) uint8 in a row.

        Grey, palette, CMYK and 16 bits become RGB; transparency is left out, and the orientation
        that a camera notes, as torchvision does it.

        Args:
            name: of the picture, for errors.
            header: what its first bytes say.
            content: all of its bytes.

        Raises:
            DataError: it is damaged, another picture than its header says, or broke its decoder.
        """
        try:
            with self._lock:
                is_decoded, found = self._asked(header, content)
        except (OSError, EOFError) as error:
            raise DataError(
                f"{name!r} cannot be decoded: it broke its decoder, or took more than "
                f"{MEMORY_BYTES} bytes or {SECONDS:g} seconds"
            ) from error
        if not is_decoded:
            raise DataError(f"{name!r} cannot be decoded: {found.decode(errors='replace')}")
        return found

    def _asked(self, header: PictureHeader, content: bytes) -> tuple[bool, bytearray]:
        child = self._running()
        try:
            return _asked(child, header, content)
        except BaseException:  # else the next picture would get what is left of this answer
            _end(child)
            raise

    def _running(self) -> Child:
        if self._child is None or self._child.poll() is not None:
            self._child = start_confined("search.data.decoding")
            weakref.finalize(self, _end, self._child)
        return self._child


def _asked(child: Child, header: PictureHeader, content: bytes) -> tuple[bool, bytearray]:
    """What the process answers.

    Raises:
        OSError, EOFError: it has ended, or answers what was not asked for.
    """
    assert child.stdin is not None
    height, width = header.height, header.width
    child.stdin.write(REQUEST.pack(header.kind.encode(), height, width, len(content)) + content)
    child.stdin.flush()
    is_decoded, size = ANSWER.unpack(_read(child, ANSWER.size))
    wanted = height * width * COLOURS
    if size > MESSAGE_BYTES if not is_decoded else size != wanted:
        raise EOFError(f"{size} bytes came, {wanted} were wanted")
    return is_decoded, _read(child, size)


def _read(child: Child, size: int) -> bytearray:
    assert child.stdout is not None
    content = bytearray(size)
    if child.stdout.readinto(content) != size:  # type: ignore[attr-defined]
        raise EOFError("the process has ended")
    return content


def _end(child: Child) -> None:
    """Take the process and its pipes away; what waits to be written to it is lost."""
    child.kill()
    with suppress(BrokenPipeError), child:
        pass
