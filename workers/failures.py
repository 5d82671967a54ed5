"""Why a job failed: a code for programs, a sentence for people, and whether to try again."""

import errno
from typing import Any

import torch
from pydantic import ValidationError

from compress.errors import (
    ArchitectureError,
    CompressError,
    ExportError,
    UnsupportedLayerError,
    WeightsError,
)
from search.config import ConfigError
from search.errors import DataError, DeviceError, EnumerationError, SearchError

STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# (kind, code, retryable); the first that fits counts. What is not here is a fault of ours: the
# process ends, and its traceback becomes the reason once the attempts are spent.
_REASONS: tuple[tuple[type[Exception], str, bool], ...] = (
    (WeightsError, "bad_model", False),
    (ArchitectureError, "bad_model", False),
    (DataError, "bad_dataset", False),
    (UnsupportedLayerError, "unsupported", False),
    (ExportError, "unsupported", False),
    (ConfigError, "budget_invalid", False),
    (ValidationError, "budget_invalid", False),
    (EnumerationError, "unsupported", False),
    (DeviceError, "device_unavailable", True),
    (torch.OutOfMemoryError, "out_of_memory", True),
    (MemoryError, "out_of_memory", True),
    (CompressError, "evaluation_error", False),
    (SearchError, "evaluation_error", False),
)


class JobError(Exception):
    """A failure that the job process itself found, with its reason."""

    def __init__(self, code: str, detail: str, *, retryable: bool) -> None:
        super().__init__(detail)
        self.reason = {"code": code, "detail": detail, "retryable": retryable}


def reason_of(error: Exception) -> dict[str, Any] | None:
    """The reason that a job fails with; None if another attempt may go better, or we have a bug."""
    if isinstance(error, JobError):
        return error.reason
    if is_storage_full(error):
        return {"code": "storage_full", "detail": described(error), "retryable": True}
    for kind, code, retryable in _REASONS:
        if isinstance(error, kind):
            return {"code": code, "detail": described(error), "retryable": retryable}
    return None


def described(error: BaseException) -> str:
    """What an error says, with the notes that were added on its way up."""
    return "; ".join([str(error), *getattr(error, "__notes__", [])])


def is_storage_full(error: BaseException) -> bool:
    """Whether there was no room for a file, however the writing library puts it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in STORAGE:
            return True
        if any(f"(os error {number})" in str(cause) for number in STORAGE):  # safetensors
            return True
        cause = cause.__cause__
    return False
