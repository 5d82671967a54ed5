"""A file as the raw body of a request: written to disk while it arrives, never held in memory."""

import base64
import binascii
import errno
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from service.deps import BlobsDep, SettingsDep
from service.problems import ProblemError
from service.store.blobs import BlobWriter

PIECE_BYTES: Final = 1 << 20
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
RAW_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
SHA256: Final = re.compile(r"(?:^|,)\s*sha-256=:([^:]*):")


def upload_after(check: Callable[..., Any]) -> Any:
    """The body as a file without a name, received once the dependency `check` has passed.

    What the route does not commit leaves no trace. The dependency raises `ProblemError`:
    file-too-large, by the length that is announced and again by what arrives; checksum-mismatch,
    unsupported-encoding, storage-full.
    """

    async def receive(
        request: Request,
        blobs: BlobsDep,
        settings: SettingsDep,
        _: Annotated[Any, Depends(check)],
    ) -> AsyncIterator[BlobWriter]:
        """Async: a body comes through the event loop, and a thread that waited for it would be
        held for as long as the slowest client sends. The disk is left to threads.
        """
        with _full_disk(), await run_in_threadpool(blobs.writer) as writer:
            await _write(request, writer, settings.max_upload_bytes)
            yield writer

    # Function scope: what was refused is gone before the client hears of it.
    return Depends(receive, scope="function")


async def _write(request: Request, writer: BlobWriter, limit: int) -> None:
    wanted = _digest(request.headers)
    _check_encoding(request.headers)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise _too_large(limit)
    try:
        async for piece in _pieces(request.stream()):
            if writer.size_bytes + len(piece) > limit:
                raise _too_large(limit)
            await run_in_threadpool(writer.write, piece)
    except ClientDisconnect as error:  # no mistake of ours to be logged, and nobody to answer
        raise ProblemError("invalid-request", "the connection was closed too early") from error
    if wanted not in (None, writer.sha256):
        raise ProblemError(
            "checksum-mismatch",
            f"{writer.size_bytes} bytes with SHA-256 {writer.sha256} arrived, {wanted} was "
            "announced: send the file again",
        )


async def _pieces(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Gather what the network brings into writes that are worth a change of thread."""
    piece = bytearray()
    async for chunk in stream:
        piece += chunk
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


@contextmanager
def _full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise ProblemError(
            "storage-full",
            "the disk of the service is full; nothing was kept: delete models, datasets or jobs, "
            "or ask whoever runs the service",
        ) from error


def _too_large(limit: int) -> ProblemError:
    return ProblemError("file-too-large", f"a longer file came, at most {limit} bytes were wanted")


def _check_encoding(headers: Headers) -> None:
    encoding = headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise ProblemError(
            "unsupported-encoding",
            f"content-encoding {encoding} came; send the file as it is",
            headers={"Accept-Encoding": "identity"},
        )


def _digest(headers: Headers) -> str | None:
    """The SHA-256 that Content-Digest or Repr-Digest announces (RFC 9530), as hexadecimal.

    The two agree here, since the content is not encoded. Other algorithms are left aside.
    """
    for name in ("content-digest", "repr-digest"):
        if found := SHA256.search(headers.get(name, "")):
            try:
                digest = base64.b64decode(found[1], validate=True)
            except binascii.Error:
                digest = b""
            if len(digest) != 32:
                raise ProblemError(
                    "invalid-request",
                    f"{name}: {found[1]!r} came, the 32 bytes of a SHA-256 in base64 were wanted",
                    errors=[{"parameter": name, "in": "header"}],
                )
            return digest.hex()
    return None
