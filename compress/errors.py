"""What can go wrong while factorising.

CompressError
├── RankError               a rank lies outside what the weight allows
├── DegenerateError         the terms of a decomposition grow to cancel each other
├── UnstableError           a network's outputs are not finite, or drift apart over many steps
├── UnsupportedLayerError   a method cannot represent this layer
├── PlanError               a plan does not fit the network, or its JSON is malformed
├── ArchitectureError       no such architecture
├── ProgramError            a .pt2 or ONNX file that is malformed, or holds what is not read
├── WeightsError            weights that do not fit their architecture, or are not finite
├── ArchiveError            a zip or tar archive is damaged, or breaks its format
│   ├── UnsafeArchiveError      it holds what is never opened
│   └── ArchiveSizeError        it holds more than is allowed
└── ExportError             an exported file does not compute what the network computes
"""

from collections.abc import Sequence


class CompressError(Exception):
    """The root of every error that `compress` raises on purpose."""


class RankError(CompressError, ValueError):
    """A rank lies outside what the weight allows."""


class DegenerateError(CompressError, ArithmeticError):
    """The terms of a decomposition grow without bound and cancel each other."""


class UnstableError(CompressError, ArithmeticError):
    """A network's outputs are not finite, or drift apart over many steps."""


class UnsupportedLayerError(CompressError, TypeError):
    """A method cannot represent this layer."""


class PlanError(CompressError, ValueError):
    """A plan does not fit the network, or its JSON is malformed."""


class ArchitectureError(CompressError, LookupError):
    """No such architecture."""


class ProgramError(CompressError, ValueError):
    """A `.pt2` archive or an ONNX file that is malformed, or holds what is not read."""


class WeightsError(CompressError, ValueError):
    """Weights that do not fit their architecture, or are not finite.

    `differences` has a sentence for every tensor that does not fit.
    """

    def __init__(self, message: str, differences: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.differences = tuple(differences)


class ArchiveError(CompressError, ValueError):
    """A zip or tar archive is damaged, or breaks its format."""


class UnsafeArchiveError(ArchiveError):
    """An archive holds what is never opened."""


class ArchiveSizeError(ArchiveError):
    """An archive holds more than is allowed."""


class ExportError(CompressError, RuntimeError):
    """An exported file does not compute what the network computes, or cannot be made.

    Args:
        message: what went wrong.
        file: the name in a result of the file that is missing for it.
    """

    def __init__(self, message: str, file: str) -> None:
        super().__init__(message)
        self.file = file
