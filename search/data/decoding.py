"""The process that decodes pictures: `python -m search.data.decoding`, started by `Decoder`.

It has Pillow's decoders of JPEG, PNG and WebP and no others. What it is asked comes on its standard
input, see `search.data.decoder`; it ends with that.
"""

import io
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import IO, Final

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from compress.confinement import confine, limit_time
from search.data.decoder import ANSWER, MEMORY_BYTES, MESSAGE_BYTES, REQUEST, SECONDS

# By their classes: Image.open would first load decoders of other formats.
DECODERS: Final[Mapping[bytes, Callable[[IO[bytes]], Image.Image]]] = {
    b"JPEG": JpegImageFile,
    b"PNG": PngImageFile,
    b"WEBP": WebPImageFile,
}


def main() -> None:
    """Answer as long as somebody asks."""
    confine(memory_bytes=MEMORY_BYTES, seconds=SECONDS, file_bytes=0)
    warnings.simplefilter("ignore")  # of transparency, which is left out
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while request := requests.read(REQUEST.size):
        kind, height, width, size = REQUEST.unpack(request)
        content = requests.read(size)
        limit_time(SECONDS)
        try:
            is_decoded, answer = True, pixels(kind.rstrip(b"\0"), (width, height), content)
        except Exception as error:  # a damaged picture fails in as many ways as there are decoders
            is_decoded, answer = False, _reason(error)
        answers.write(ANSWER.pack(is_decoded, len(answer)))
        answers.write(answer)
        answers.flush()


def pixels(kind: bytes, size: tuple[int, int], content: bytes) -> bytes:
    """Those of a picture, (H, W, 3) in a row.

    Args:
        kind: JPEG, PNG or WEBP.
        size: (width, height), as its header says.
        content: the picture.

    Raises:
        Exception: whatever a decoder raises.
    """
    with DECODERS[kind](io.BytesIO(content)) as image:
        if image.size != size:
            raise ValueError(f"it has {image.size} pixels, its header says {size}")
        return _rgb(image).tobytes()


def _rgb(image: Image.Image) -> Image.Image:
    if not image.mode.startswith("I"):
        return image.convert("RGB")
    # 16 bits, which convert would clip: the upper ones of each value, in one of its four bytes.
    stored = image.convert("I").tobytes()
    upper = stored[1::4] if sys.byteorder == "little" else stored[2::4]
    return Image.frombytes("L", image.size, upper).convert("RGB")


def _reason(error: Exception) -> bytes:
    text = str(error) or type(error).__name__
    return text.encode(errors="replace")[:MESSAGE_BYTES]


if __name__ == "__main__":
    main()
