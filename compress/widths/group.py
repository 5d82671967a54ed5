"""A channel group: channels that one layer puts out and one other layer alone takes in."""

from dataclasses import dataclass

from torch import Tensor, nn

from compress.layers import CONVOLUTIONS


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """The modules that share some channels, by name."""

    producer: str
    followers: tuple[str, ...]
    """Norms and depthwise convolutions on the way."""
    reader: str
    channels: int

    def rows(self, reader: nn.Module, x: Tensor) -> Tensor:
        """What enters the reader, at every place in space by itself: (places, channels).

        Args:
            reader: the module of that name.
            x: (N, C, *size) of a convolution; of a Linear (..., C * P), where each channel has P
                features in a row.
        """
        if isinstance(reader, CONVOLUTIONS):
            return x.movedim(1, -1).flatten(0, -2)
        of_channels = x.reshape(-1, self.channels, x.shape[-1] // self.channels)
        return of_channels.movedim(1, -1).flatten(0, -2)
