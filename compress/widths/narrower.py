"""A dense network at other widths."""

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property

from torch import Tensor, nn

from compress.errors import PlanError
from compress.widths.group import ChannelGroup
from compress.widths.groups import ChannelGroups
from compress.widths.narrowing import narrow_
from compress.widths.selection import Selection, select


class Narrower:
    """Makes narrow copies of one dense network; the same widths, the same network.

    Args:
        dense: left as it is.
        example: a batch (N, ...) of inputs, which groups are tried on.
        batches: of inputs, by which channels are chosen and made up for.
    """

    def __init__(self, dense: nn.Module, example: Tensor, batches: Sequence[Tensor]) -> None:
        self._dense = dense
        self._example = example
        self._batches = batches

    @cached_property
    def groups(self) -> dict[str, ChannelGroup]:
        """Layer -> the group of its output channels, in forward order."""
        return {group.producer: group for group in self._found.groups}

    @property
    def refusals(self) -> dict[str, str]:
        """Layer -> why its output channels cannot be taken out."""
        return self._found.refusals

    def kept(self, widths: Mapping[str, int]) -> dict[str, Tensor]:
        """Layer -> numbers of the output channels that it keeps, rising."""
        return {name: self._selections[name].kept(width) for name, width in widths.items()}

    def network(self, widths: Mapping[str, int]) -> nn.Module:
        """A copy with so many output channels of those layers, in the mode of the dense network.

        Raises:
            PlanError: a layer is in no group, or has not so many channels.
            CompressError: an activation is not finite.
        """
        for name, width in widths.items():
            group = self.groups.get(name)
            if group is None:
                reason = self.refusals.get(name, "it is no plain layer of the network")
                raise PlanError(f"layer {name!r} cannot be narrowed: {reason}")
            if not 0 < width <= group.channels:
                raise PlanError(
                    f"layer {name!r}: width {width} came, 1 to {group.channels} was wanted"
                )
        network = copy.deepcopy(self._dense)
        for name, width in widths.items():
            selection = self._selections[name]
            narrow_(network, self.groups[name], selection.kept(width), selection.mixing(width))
        return network

    @cached_property
    def _found(self) -> ChannelGroups:
        return ChannelGroups.of(self._dense, self._example)

    @cached_property
    def _selections(self) -> dict[str, Selection]:
        return select(self._dense, self.groups.values(), self._batches)
