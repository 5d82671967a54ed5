"""What runs a network where its speed is measured."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Literal, Protocol

from torch import Tensor, nn

Layout = Literal["contiguous", "channels_last"]

NO_OTHERS: Final[Mapping[str, str]] = MappingProxyType({})  # libraries besides torch

Call = Callable[[], object]
"""Runs a network once on its input."""

Instances = Callable[[Layout], Call]
"""Makes a network ready to be called, in one of the layouts that its runtime knows for it."""


class Runtime(Protocol):
    """One way to run networks, with a number of threads.

    A speed-up holds for the runtime that it was measured in: the dense network and its candidates
    always run in the same one.
    """

    @property
    def name(self) -> str: ...

    @property
    def threads(self) -> int: ...

    @property
    def torch_threads(self) -> int:
        """What torch may compute with meanwhile: another runtime's threads need the processor."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Of the libraries that it needs besides torch."""

    def layouts(self, network: nn.Module, example: Tensor) -> tuple[Layout, ...]:
        """The memory layouts in which the network may be the faster: one or two."""

    def prepare(self, network: nn.Module, example: Tensor) -> Instances:
        """What makes instances of a network: the same computation, in memory of its own each time.

        Args:
            network: whole, or a single layer; in eval mode, on the device of `example`; left as
                it is.
            example: the input (N, ...) of each call.
        """
