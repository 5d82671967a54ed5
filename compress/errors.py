"""What can go wrong while factorising.

CompressError
├── RankError               a rank lies outside what the weight allows
├── DegenerateError         the terms of a decomposition grow to cancel each other
├── UnsupportedLayerError   a method cannot represent this layer
├── PlanError               a plan does not fit the network, or its JSON is malformed
├── ArchitectureError       no such architecture
├── WeightsError            weights that do not fit their architecture, or are not finite
└── ExportError             an exported file does not compute what the network computes
"""


class CompressError(Exception):
    """The root of every error that `compress` raises on purpose."""


class RankError(CompressError, ValueError):
    """A rank lies outside what the weight allows."""


class DegenerateError(CompressError, ArithmeticError):
    """The terms of a decomposition grow without bound and cancel each other."""


class UnsupportedLayerError(CompressError, TypeError):
    """A method cannot represent this layer."""


class PlanError(CompressError, ValueError):
    """A plan does not fit the network, or its JSON is malformed."""


class ArchitectureError(CompressError, LookupError):
    """No such architecture."""


class WeightsError(CompressError, ValueError):
    """Weights that do not fit their architecture, or are not finite."""


class ExportError(CompressError, RuntimeError):
    """An exported file does not compute what the network computes, or cannot be made.

    Args:
        message: what went wrong.
        file: the name in a result of the file that is missing for it.
    """

    def __init__(self, message: str, file: str) -> None:
        super().__init__(message)
        self.file = file
