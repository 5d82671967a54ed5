import errno

import pytest
import torch

from compress.errors import CompressError, WeightsError
from search.config import ConfigError
from search.errors import DataError, DeviceError
from service.store.errors import LeaseLostError
from workers.failures import JobError, reason_of


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        (WeightsError("w"), "bad_model", False),
        (DataError("d"), "bad_dataset", False),
        (ConfigError("c"), "budget_invalid", False),
        (CompressError("e"), "evaluation_error", False),
        (DeviceError("no GPU"), "device_unavailable", True),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory", True),
        (MemoryError(), "out_of_memory", True),
        (OSError(errno.ENOSPC, "No space left on device"), "storage_full", True),
        (JobError("timeout", "t", retryable=True), "timeout", True),
    ],
    ids=lambda value: getattr(type(value), "__name__", None),
)
def test_every_failure_that_is_known_has_its_code(error, code, retryable):
    reason = reason_of(error)
    assert (reason["code"], reason["retryable"]) == (code, retryable)


@pytest.mark.parametrize(
    "error", [LeaseLostError("job_1", 1), KeyError("a bug"), OSError(errno.EACCES, "denied")]
)
def test_what_is_not_known_is_left_to_the_next_attempt(error):
    assert reason_of(error) is None


def test_the_detail_holds_the_notes_that_were_added_on_the_way_up():
    error = CompressError("rank 0 came")
    error.add_note("in layer 'conv1'")
    assert reason_of(error)["detail"] == "rank 0 came; in layer 'conv1'"


def test_a_full_disk_is_known_under_the_errors_of_other_libraries():
    wrapped = CompressError("torch.export failed")
    wrapped.__cause__ = RuntimeError("I/O error: File too large (os error 27)")
    assert reason_of(wrapped)["code"] == "storage_full"
