"""Which channels of a group to keep, and how the others are made up from them.

An interpolative decomposition of what enters the reader (Chee, Flynn, Damle and De Sa, "Model
Preserving Compression for Neural Networks", 2022): the channels that go are replaced by the sums of
those that stay that are nearest to them on calibration inputs. Chosen greedily, so that the error
of the reader's outputs falls the most with each channel.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from compress.calibration import evaluating, watching
from compress.errors import CompressError
from compress.kernels import kernel_of
from compress.layers import shape_of
from compress.widths.group import ChannelGroup

RIDGE: Final = 1e-8  # of the mean variance: channels that are alike do not cancel each other
HALF: Final = (torch.float16, torch.bfloat16)  # too coarse for sums of squares
DEAD: Final = 1e-10  # of the largest variance: what is left of a channel below it is round-off


@dataclass(frozen=True, slots=True)
class Selection:
    """The channels of one group by falling worth."""

    order: Tensor  # (C,) numbers of channels: of any k the first k are kept
    moment: Tensor  # (C, C) float64, the second moment of what enters the reader

    def kept(self, width: int) -> Tensor:
        """(width,) numbers of channels, rising."""
        return self.order[:width].sort().values

    def mixing(self, width: int) -> Tensor:
        """(C, width): every channel as a sum of the kept ones, in the order of `kept`."""
        kept = self.kept(width)
        among = self.moment[kept][:, kept]
        ridge = RIDGE * among.diagonal().mean().clamp_min(torch.finfo(among.dtype).tiny)
        among = among + ridge * torch.eye(width, dtype=among.dtype, device=among.device)
        mixing = torch.linalg.solve(among, self.moment[kept]).mT.contiguous()
        mixing[kept] = torch.eye(width, dtype=among.dtype, device=among.device)
        return mixing


def select(
    model: nn.Module, groups: Iterable[ChannelGroup], batches: Iterable[Tensor]
) -> dict[str, Selection]:
    """Producer -> the selection of its group, by one pass of the dense network.

    Args:
        model: dense; left as it is.
        groups: of its channels.
        batches: of inputs, (N, ...) each.

    Raises:
        CompressError: what enters a reader is not finite.
    """
    by_reader = {group.reader: group for group in groups}
    sums = {
        name: torch.zeros(group.channels, group.channels, dtype=torch.float64)
        for name, group in by_reader.items()
    }
    rows = dict.fromkeys(by_reader, 0)

    def add(name: str, x: Tensor) -> None:
        found = by_reader[name].rows(model.get_submodule(name), x)
        found = found.float() if found.dtype in HALF else found
        sums[name] = sums[name].to(x.device) + (found.mT @ found).double()
        rows[name] += len(found)

    hooks = {model.get_submodule(name): lambda x, name=name: add(name, x) for name in by_reader}
    with evaluating(model), watching(hooks):
        for batch in batches:
            model(batch)
    selections = {}
    for name, group in by_reader.items():
        moment = sums[name] / max(rows[name], 1)
        if not bool(moment.isfinite().all()):
            raise CompressError(f"what enters layer {name!r} is not finite")
        felt = _felt(model.get_submodule(name), group.channels)
        selections[group.producer] = Selection(greedy_order(moment, felt), moment)
    return selections


def _felt(reader: nn.Module, channels: int) -> Tensor:
    """(C, C): what an error of the channels costs at the reader's outputs, places apart."""
    weight = reader.get_parameter("weight").detach().double()
    kernel = kernel_of(shape_of(reader), weight).reshape(len(weight), channels, -1)
    return torch.einsum("ocp,odp->cd", kernel, kernel)


def greedy_order(moment: Tensor, felt: Tensor) -> Tensor:
    """Channels in the order in which they leave the least of tr(felt x what is unexplained).

    Args:
        moment: (C, C), symmetric.
        felt: (C, C), symmetric, what an error costs.

    Returns:
        (C,) numbers of channels.
    """
    left = moment.clone()  # of the channels, what those chosen so far do not explain
    least = DEAD * moment.diagonal().max().clamp_min(torch.finfo(moment.dtype).tiny)
    order: list[int] = []
    is_open = torch.ones(len(moment), dtype=torch.bool, device=moment.device)
    weighed = left @ felt
    for _ in range(len(moment)):
        variances = left.diagonal()
        gains = (weighed * left.mT).sum(1) / variances.clamp_min(least)
        gains = torch.where(is_open, gains.where(variances > least, gains.new_zeros(())), -1.0)
        chosen = int(gains.argmax())
        order.append(chosen)
        is_open[chosen] = False
        if variances[chosen] > least:
            column = left[:, chosen] / variances[chosen].sqrt()
            left = left - torch.outer(column, column)
            weighed = weighed - torch.outer(column, column @ felt)
    return torch.tensor(order, device=moment.device)
