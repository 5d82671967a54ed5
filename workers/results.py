"""The files of a job: written in a folder that passes, kept in the blobs, published at once."""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from compress.artifact import PROGRAMS, zip_folder
from compress.errors import ExportError
from compress.plan import Plan
from search.confirmation import Confirmation
from search.run import export
from search.subject import Subject
from service.store.artifacts import File
from service.store.blobs import Blobs
from workers.failures import is_storage_full

log = logging.getLogger(__name__)

ARCHIVE: Final = "result.zip"
MEDIA_TYPES: Final = {
    ".json": "application/json",
    ".md": "text/markdown",
    ".py": "text/x-python",
    ".txt": "text/plain",
    ".zip": "application/zip",
}


def unconfirmed(
    subject: Subject, plan: Plan, measured: Mapping[str, Any], blobs: Blobs
) -> list[File]:
    """The files of the best candidate so far: what a cancelled job leaves.

    Without the programs, whose export takes seconds.

    Raises:
        OSError: there is no space.
    """
    with _folder() as folder:
        document = {"state": "unconfirmed", "result": dict(measured)}
        export(folder, subject, subject.assemble(plan), plan, document, programs=())
        return _stored(folder, blobs)


def confirmed(
    subject: Subject, confirmation: Confirmation, document: Mapping[str, Any], blobs: Blobs
) -> tuple[list[File], str | None]:
    """The files of the result, with the report and the programs that it can be exported to.

    Returns:
        The files, and why a program is not among them.

    Raises:
        OSError, ExportError: there is no space.
    """
    programs, faults = list(PROGRAMS), list[str]()
    model, plan = confirmation.model, confirmation.plan
    while True:
        with _folder() as folder:
            try:
                export(folder, subject, model, plan, document, programs=programs)
                return _stored(folder, blobs), "; ".join(faults) or None
            except ExportError as error:
                if is_storage_full(error):
                    raise
                faults.append(f"{error.file}: {error}")
                programs.remove(error.file)


def _stored(folder: Path, blobs: Blobs) -> list[File]:
    """Put every file, and all of them as one zip, into the blobs."""
    paths = sorted(folder.iterdir())
    with _folder() as elsewhere:
        archive = elsewhere / ARCHIVE
        zip_folder(folder, archive)
        return [_file(path, blobs) for path in (*paths, archive)]


def _file(path: Path, blobs: Blobs) -> File:
    sha256, size_bytes = blobs.put_file(path)
    media_type = MEDIA_TYPES.get(path.suffix, "application/octet-stream")
    return File(path.name, media_type, sha256, size_bytes)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="result-") as folder:
        yield Path(folder)
