"""What a dense network answers on calibration inputs: the measure that repair holds against."""

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from compress.calibration import evaluating, trace
from compress.layers import CONVOLUTIONS

ROWS = 8192  # positions sampled per layer, over all inputs


@dataclass(frozen=True, slots=True)
class Sample:
    """Outputs of a dense layer at some positions, from one call."""

    index: tuple[Tensor, ...]  # of the positions in (N, *size) or (N, ...), each (K,)
    fold: Tensor  # (K,) 0 or 1, by input
    outputs: Tensor  # (K, O)


@dataclass(frozen=True, slots=True)
class Reference:
    """One pass of the dense network, which serves every network that is made from it.

    Holds 8192 outputs of each layer: 17 MB for one of 512 channels.
    """

    batches: tuple[Tensor, ...]
    """Calibration inputs, each (N, ...)."""
    answers: tuple[Tensor, ...]
    """The network's outputs, batch by batch."""
    samples: dict[str, list[Sample]]
    """Layer name -> one sample for each call, in forward order; no layer that is never called."""
    calls: dict[str, int]
    """Layer name -> calls in one forward pass."""

    def part(self, kept: Mapping[str, Tensor]) -> Self:
        """What is held against a network with some of the outputs alone: layer -> their numbers."""
        samples = {
            name: [
                replace(sample, outputs=sample.outputs[:, kept[name]]) if name in kept else sample
                for sample in of_layer
            ]
            for name, of_layer in self.samples.items()
        }
        return replace(self, samples=samples)

    @classmethod
    def of(cls, dense: nn.Module, names: Collection[str], batches: Sequence[Tensor]) -> Self:
        """Ask `dense`, which is left as it is.

        Args:
            dense: the network before factorisation.
            names: its layers that may be repaired; what is sampled of one does not depend on
                the others.
            batches: inputs on the device of the network.
        """
        with evaluating(dense):
            uses = trace(dense, batches[0][:1])
            calls = {name: use.calls for name, use in uses.items() if name in names}
            samples: dict[str, list[Sample]] = {name: [] for name in calls}
            answers = []
            with ExitStack() as stack:
                recorders = {name: _Recorder(samples[name]) for name in calls}
                for name, recorder in recorders.items():
                    hook = dense.get_submodule(name).register_forward_hook(recorder)
                    stack.callback(hook.remove)
                inputs, offset = sum(map(len, batches)), 0
                for batch in batches:
                    for name, recorder in recorders.items():
                        share = len(batch) / inputs / calls[name]
                        recorder.expect(offset, math.ceil(ROWS * share))
                    answers.append(dense(batch))
                    offset += len(batch)
        return cls(tuple(batches), tuple(answers), samples, calls)


class _Recorder:
    """A forward hook that keeps outputs at random positions."""

    def __init__(self, samples: list[Sample]) -> None:
        self._samples = samples
        self._generator = torch.Generator().manual_seed(0)
        self._offset = self._wanted = 0

    def expect(self, offset: int, wanted: int) -> None:
        """The next calls are on inputs from number `offset` on, and give `wanted` outputs each."""
        self._offset, self._wanted = offset, wanted

    def __call__(self, layer: nn.Module, _inputs: object, y: Tensor) -> None:
        y = y.movedim(1, -1) if isinstance(layer, CONVOLUTIONS) else y
        total = math.prod(y.shape[:-1])
        chosen = torch.arange(total)
        if self._wanted < total:
            chosen = torch.randint(total, (self._wanted,), generator=self._generator)
        index = _unravel(chosen.to(y.device), y.shape[:-1])
        self._samples.append(Sample(index, (index[0] + self._offset) % 2, y[index]))


def _unravel(positions: Tensor, shape: Sequence[int]) -> tuple[Tensor, ...]:
    """Row-major positions as indices; torch's own loads sympy for it, which takes seconds."""
    index = []
    for size in reversed(shape):
        index.append(positions % size)
        positions = positions // size
    return tuple(reversed(index))
