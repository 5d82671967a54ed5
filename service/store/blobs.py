"""Files named by the SHA-256 of their content.

    root/ab/abcdef...   whole files alone: each is renamed into place after it has reached the disk
    root/tmp/           files that are being written
    root/lock           held while a file is put into place or taken away

The same content is one file, and nobody ever reads a half-written one.
"""

import fcntl
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

CHUNK_BYTES = 1 << 20
DIGEST = re.compile(r"[0-9a-f]{64}")


class Blobs:
    """A folder of files; processes of one host may share it."""

    def __init__(self, root: Path) -> None:
        """Open the folder, creating it where it is missing."""
        self.root = root
        self._tmp = root / "tmp"
        self._tmp.mkdir(parents=True, exist_ok=True)

    def writer(self) -> "BlobWriter":
        """Begin a file: `with blobs.writer() as writer`. It stays only if `commit` is called."""
        return BlobWriter(self)

    def put_file(self, path: Path) -> tuple[str, int]:
        """Copy a file in.

        Returns:
            Its SHA-256 and its size in bytes.

        Raises:
            OSError: there is no space; nothing is left of the copy.
        """
        with self.writer() as writer, path.open("rb") as source:
            while chunk := source.read(CHUNK_BYTES):
                writer.write(chunk)
            return writer.commit(), writer.size_bytes

    def path(self, sha256: str) -> Path:
        """Where the file of this digest is, if it is here.

        Raises:
            ValueError: this is no digest, so it may be a path that leads out of the folder.
        """
        if not DIGEST.fullmatch(sha256):
            raise ValueError(f"{sha256!r} came, 64 lower-case hexadecimal digits were wanted")
        return self.root / sha256[:2] / sha256

    def digests(self) -> Iterator[str]:
        """The digests of all files."""
        for path in self.root.glob("??/*"):
            yield path.name

    def delete(self, sha256: str, *, unused_seconds: float = 0.0) -> bool:
        """Remove a file, unless it was put in within the last `unused_seconds`.

        Returns:
            Whether a file was removed.
        """
        path = self.path(sha256)
        with self.locked():
            try:
                if time.time() - path.stat().st_mtime < unused_seconds:
                    return False
                path.unlink()
            except FileNotFoundError:
                return False
        return True

    def sweep(self, *, untouched_seconds: float = 3600.0) -> int:
        """Remove what crashed processes left half-written.

        Args:
            untouched_seconds: what was written to since then may still be somebody's.

        Returns:
            How many files were removed.
        """
        removed = 0
        for path in self._tmp.iterdir():
            try:
                if time.time() - path.stat().st_mtime >= untouched_seconds:
                    path.unlink()
                    removed += 1
            except FileNotFoundError:  # committed or discarded in this moment
                continue
        return removed

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone, among all processes, with what is in place."""
        with (self.root / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class BlobWriter:
    """A file that is being written. Without `commit`, nothing of it stays."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        descriptor, name = tempfile.mkstemp(dir=blobs.root / "tmp")
        # Unbuffered, so that a full disk is reported by `write` and never by closing the file.
        self._file = open(descriptor, "wb", buffering=0)  # noqa: SIM115, closed by __exit__
        self._path = Path(name)
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """The digest of what has been written so far."""
        return self._hash.hexdigest()

    @property
    def path(self) -> Path:
        """Where the file lies until it is committed, to be looked at before."""
        return self._path

    def write(self, data: bytes) -> None:
        """Append.

        Raises:
            OSError: there is no space.
        """
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._hash.update(data)
        self.size_bytes += len(data)

    def commit(self) -> str:
        """Put the file into place; one that is there already becomes this one, and as new.

        Returns:
            Its SHA-256.

        Raises:
            OSError: there is no space.
        """
        os.fsync(self._file.fileno())
        path = self._blobs.path(self.sha256)
        path.parent.mkdir(exist_ok=True)
        with self._blobs.locked():
            os.replace(self._path, path)
        _sync_folder(path.parent)
        _sync_folder(self._blobs.root)
        return self.sha256

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
