"""A file that never changes, whole or in part (RFC 9110, 13 and 14).

Starlette's FileResponse makes its ETag from time and size and leaves conditions alone; here the
ETag is the content's digest.
"""

import base64
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import anyio
from fastapi.responses import Response, StreamingResponse

from service.etags import is_same, is_unchanged
from service.problems import ProblemError

CHUNK_BYTES: Final = 1 << 18
RANGE: Final = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Download:
    """A file and what is said of it."""

    path: Path
    name: str
    media_type: str
    sha256: str
    size_bytes: int

    @property
    def etag(self) -> str:
        return f'"sha256-{self.sha256}"'

    @property
    def headers(self) -> dict[str, str]:
        """What every answer about the file says."""
        return {
            "ETag": self.etag,
            "Cache-Control": "private, max-age=31536000, immutable",
            "Accept-Ranges": "bytes",
            "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(self.sha256)).decode()}:",
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(self.name, safe='')}",
            "X-Content-Type-Options": "nosniff",
        }

    def answer(self, method: str, conditions: Mapping[str, str]) -> Response:
        """What a GET or HEAD gets.

        Args:
            method: GET or HEAD; a HEAD is answered as a GET without Range, and without content.
            conditions: the headers of the request, in lower case.

        Raises:
            ProblemError: range-not-satisfiable.
        """
        headers = self.headers
        if is_unchanged(conditions.get("if-none-match"), self.etag):
            return Response(status_code=304, headers=headers)
        if method == "HEAD":
            headers["Content-Length"] = str(self.size_bytes)
            return Response(headers=headers, media_type=self.media_type)
        part = None
        if is_same(conditions.get("if-range"), self.etag):
            part = find_range(conditions.get("range"), self.size_bytes)
        if part is None:
            return self._content(range(self.size_bytes), 200, headers)
        if not part:
            raise ProblemError(
                "range-not-satisfiable",
                f"{conditions['range']} came, the file has {self.size_bytes} bytes",
                headers={"Content-Range": f"bytes */{self.size_bytes}"},
            )
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{self.size_bytes}"
        return self._content(part, 206, headers)

    def _content(self, part: range, status: int, headers: dict[str, str]) -> Response:
        self.path.stat()  # a file that is missing is an error now, not in the middle of an answer
        headers["Content-Length"] = str(len(part))
        return StreamingResponse(_read(self.path, part), status, headers, self.media_type)


def find_range(header: str | None, size: int) -> range | None:
    """The bytes that a Range header asks for: empty if there are none, None for the whole file.

    A header that asks for several ranges, for another unit or for nothing that can be understood
    is left aside, as the standard allows or demands.
    """
    found = RANGE.fullmatch(header or "")
    if found is None or found[1] == found[2] == "":
        return None
    first, last = found.groups()
    if first == "":
        return range(max(0, size - int(last)), size) if size else None
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, size) if last else size)


async def _read(path: Path, part: range) -> AsyncIterator[bytes]:
    """Async, so that a slow reader holds no thread between two pieces."""
    async with await anyio.open_file(path, "rb") as file:
        await file.seek(part.start)
        left = len(part)
        while left and (chunk := await file.read(min(left, CHUNK_BYTES))):
            left -= len(chunk)
            yield chunk
