"""What the readers of files say, as problems of the API."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from compress.errors import ArchiveError, ArchiveSizeError, ProgramError, UnsafeArchiveError
from search.errors import DataError
from service.problems import ProblemError

# The first that fits counts.
CODES: Final[dict[type[Exception], str]] = {
    UnsafeArchiveError: "unsafe-file",
    ArchiveSizeError: "file-too-large",
    ArchiveError: "malformed-file",
    DataError: "invalid-dataset",
    ProgramError: "unsupported-program",
}


@contextmanager
def refusals() -> Iterator[None]:
    """Raise as a `ProblemError` what the file is refused for."""
    try:
        yield
    except tuple(CODES) as error:
        code = next(code for kind, code in CODES.items() if isinstance(error, kind))
        raise ProblemError(code, str(error)) from error
