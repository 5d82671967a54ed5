"""What can go wrong while factorising.

CompressError
├── RankError               a rank lies outside what the weight allows
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


class UnsupportedLayerError(CompressError, TypeError):
    """A method cannot represent this layer."""


class PlanError(CompressError, ValueError):
    """A plan does not fit the network, or its JSON is malformed."""


class ArchitectureError(CompressError, LookupError):
    """No such architecture."""


class WeightsError(CompressError, ValueError):
    """Weights that do not fit their architecture, or are not finite."""


class ExportError(CompressError, RuntimeError):
    """An exported file does not compute what the network computes."""
