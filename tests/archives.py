"""Archives of pictures, good and bad, in memory."""

import io
import stat
import struct
import tarfile
import zipfile
import zlib

import numpy as np
from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"


def picture(number: int = 0, size: tuple[int, int] = (6, 5), form: str = "PNG") -> bytes:
    """A picture (height, width) whose pixels come from its number."""
    pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), form)


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def folders(count: int = 12, classes: tuple[str, ...] = ("cat", "dog"), prefix: str = "", **how):
    """Names and pictures, a folder for each class in turn."""
    return {
        f"{prefix}{classes[n % len(classes)]}/{n:03}.png": picture(n, **how) for n in range(count)
    }


def shard(count: int = 12, classes: int = 3) -> dict[str, bytes]:
    """Pairs of a picture and the number of its class."""
    entries = {}
    for n in range(count):
        entries[f"{n:05}.png"] = picture(n)
        entries[f"{n:05}.cls"] = str(n % classes).encode()
    return entries


def zip_of(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


def zip_with(name: str, content: bytes = b"", mode: int = stat.S_IFREG, **attributes) -> bytes:
    """A good archive and one entry of another kind."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for good, data in folders().items():
            archive.writestr(good, data)
        entry = zipfile.ZipInfo("placeholder")
        entry.filename = name  # the constructor would tidy it
        entry.external_attr = (mode | 0o644) << 16
        for key, value in attributes.items():
            setattr(entry, key, value)
        archive.writestr(entry, content)
    return file.getvalue()


def tar_of(entries: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def tar_with(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **attributes) -> bytes:
    """A good archive and one member of another kind."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for good, content in folders().items():
            entry = tarfile.TarInfo(good)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, link
        for key, value in attributes.items():
            setattr(entry, key, value)
        archive.addfile(entry)
    return file.getvalue()


def png_of(height: int, width: int) -> bytes:
    """A PNG that says it has this size, and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg_of(height: int, width: int, before: int = 0) -> bytes:
    """The header of a JPEG of this size, after so many bytes of profile."""
    profile = b"".join(
        b"\xff\xe2" + struct.pack(">H", 2 + part) + bytes(part)
        for part in [60_000] * (before // 60_000) + [before % 60_000]
    )
    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00"
    return b"\xff\xd8" + profile + b"\xff\xc0" + struct.pack(">H", 2 + len(frame)) + frame
