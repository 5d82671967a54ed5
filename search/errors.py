"""What can go wrong while searching.

SearchError
├── DataError          arrays that are not what their description says
├── SampleError        per-sample values that cannot be compared
├── EnumerationError   a group search that would take more evaluations than allowed
├── DeviceError        the device or the runtime that was asked for is not there
└── AnswerError        a network answers with values that are not finite (evaluation.py)
"""


class SearchError(Exception):
    """The root of every error that `search` raises on purpose."""


class DataError(SearchError, ValueError):
    """Arrays that are not what their description says."""


class SampleError(SearchError, ValueError):
    """Per-sample values that cannot be compared."""


class DeviceError(SearchError, RuntimeError):
    """The device or the runtime that was asked for is not there."""


class EnumerationError(SearchError, ValueError):
    """A group search that would take more evaluations than allowed."""
