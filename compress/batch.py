"""A batch for a network that takes several inputs."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn


class Batch:
    """Several inputs (N, ...) in the order of the network's arguments.

    Stands wherever a batch (N, ...) of a single input does: it has a length, a part of it is a
    batch again, and a network made ready by `accept_batches_` is called with it.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        """Keep the tensors, which have one length."""
        self.tensors = tuple(tensors)

    @property
    def ndim(self) -> int:
        """None that a memory layout could be chosen for."""
        return 0

    @property
    def is_cuda(self) -> bool:
        return self.tensors[0].is_cuda

    @property
    def device(self) -> torch.device:
        return self.tensors[0].device

    def contiguous(self) -> "Batch":
        return Batch([tensor.contiguous() for tensor in self.tensors])

    def cpu(self) -> "Batch":
        return self.to("cpu")

    def to(self, device: torch.device | str) -> "Batch":
        return Batch([tensor.to(device) for tensor in self.tensors])

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: slice | Tensor) -> "Batch":
        return Batch([tensor[index] for tensor in self.tensors])


def together(tensors: Sequence[Tensor]) -> Tensor:
    """The one input as it is, several as a `Batch`, under the type of what it stands for."""
    return tensors[0] if len(tensors) == 1 else cast("Tensor", Batch(tensors))


def tensors_of(inputs: Tensor | Batch) -> tuple[Tensor, ...]:
    """What a network is called with, in the order of its arguments."""
    return inputs.tensors if isinstance(inputs, Batch) else (inputs,)


def accept_batches_(network: nn.Module) -> None:
    """Have `network` take a `Batch` as its only argument; plain arguments still pass."""
    network.register_forward_pre_hook(_unpacked)


def _unpacked(_network: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return args[0].tensors if args and isinstance(args[0], Batch) else args
