"""A program tried on fake tensors: what a run would hold, before any memory is taken for one."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from compress.errors import ProgramError
from compress.program.graph import Graph, TensorSpec
from compress.program.steps import Program, started, take

BATCHES: Final = (1, 3)
MAX_ACTIVATION_BYTES: Final = 4 << 30


def try_out(model: Program, graph: Graph, max_bytes: int = MAX_ACTIVATION_BYTES) -> int:
    """Run a program at two batch sizes on tensors without memory.

    Args:
        model: its tensors are fake, and the FakeTensorMode that made them is on.
        graph: declares the shapes of the inputs.
        max_bytes: that inputs and results may hold at once.

    Returns:
        The most bytes of inputs and results that the larger batch holds at once.

    Raises:
        ProgramError: a node fails, it is named; too many bytes; results without one entry for
            each input of the batch, or a parameter that the network writes into.
    """
    tensors = [*model.parameters(), *model.buffers()]
    versions = [tensor._version for tensor in tensors]
    most = 0
    for size in BATCHES:
        with torch.no_grad():
            most = _run(model, graph, size, max_bytes)
    if [tensor._version for tensor in tensors] != versions:
        raise ProgramError(
            "the network writes into its own tensors: export it after model.eval(), without "
            "state from one call to the next"
        )
    return most


def inputs(graph: Graph, batch: int) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of each input for a batch of this size."""
    declared = [graph.spec(name) for name in graph.inputs]
    return [(batched(spec, declared[0], batch), getattr(torch, spec.dtype)) for spec in declared]


def _batched(spec: TensorSpec, first: TensorSpec, batch: int) -> tuple[int, ...]:
    """The shape, with `batch` wherever the first axis of the first input stands."""
    symbol, size = first.symbols[0], first.shape[0]
    if symbol is None: 
        return ...
