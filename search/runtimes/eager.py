"""torch as it is: one kernel after the other, in the memory layout that suits the network."""

import copy
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from search.runtimes.runtime import NO_OTHERS, Call, Instances, Layout

FORMATS: Final[dict[Layout, torch.memory_format]] = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}


@dataclass(frozen=True, slots=True)
class Eager:
    """A `Runtime`: the network called as it stands."""

    threads: int = 1
    name = "eager"
    versions = NO_OTHERS

    @property
    def torch_threads(self) -> int:
        return self.threads

    def layouts(self, network: nn.Module, example: Tensor) -> tuple[Layout, ...]:
        if example.ndim != 4 or not any(weight.ndim == 4 for weight in network.parameters()):
            return ("contiguous",)
        return tuple(FORMATS)

    def prepare(self, network: nn.Module, example: Tensor) -> Instances:
        """See `Runtime.prepare`.

        What takes no images, a linear layer say, has no layout but the one.
        """

        def instance(layout: Layout) -> Call:
            own = copy.deepcopy(network)
            if layout == "contiguous" or example.ndim != 4:
                x = example.contiguous()
            else:
                own.to(memory_format=FORMATS[layout])
                x = example.contiguous(memory_format=FORMATS[layout])
            return lambda: own(x)

        return instance
