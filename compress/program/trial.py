"""A program tried on fake tensors: what a run would hold, before memory is taken for one."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from compress.errors import ProgramError
from compress.program.graph import Graph
from compress.program.specs import TensorSpec
from compress.program.steps import Program, Step, results, started, steps, take

BATCHES: Final = (1, 3)
MAX_ACTIVATION_BYTES: Final = 4 << 30
REASON_LENGTH: Final = 200


def try_out(model: Program, graph: Graph, max_bytes: int = MAX_ACTIVATION_BYTES) -> int:
    """Run a program at two batch sizes, on tensors without memory.

    Args:
        model: its tensors are fake; the FakeTensorMode that made them is on.
        graph: declares the inputs.
        max_bytes: that inputs and results of steps may hold at once.

    Returns:
        What the larger batch holds at most, in bytes.

    Raises:
        ProgramError: a node fails, which is named; too many bytes; a result without an entry for
            each input of the batch; or tensors of its own that the network writes into.
    """
    tensors = [*model.parameters(), *model.buffers()]
    versions = [tensor._version for tensor in tensors]
    with torch.no_grad():
        most = max(_run(model, graph, batch, max_bytes) for batch in BATCHES)
    if [tensor._version for tensor in tensors] != versions:
        raise ProgramError(
            "the network writes into its own tensors: export it after model.eval(), and let no "
            "call leave something for the next"
        )
    return most


def batched(graph: Graph, batch: int) -> list[Tensor]:
    """Zeros for every input, for a batch of this size.

    The batch is the first axis of the first input. Other inputs have it where the same symbol
    stands; in a program of fixed sizes, on their first axis where that has the same length.

    Raises:
        ProgramError: the first input has no axes.
    """
    declared = [graph.spec(name) for name in graph.inputs]
    if not declared[0].shape:
        raise ProgramError(f"input {graph.inputs[0][:80]!r} is a number: a batch was wanted")
    return [
        torch.zeros(_shape(spec, declared[0], batch), dtype=getattr(torch, spec.dtype))
        for spec in declared
    ]


def _shape(spec: TensorSpec, first: TensorSpec, batch: int) -> list[int]:
    symbol, length = first.symbols[0], first.shape[0]
    if symbol is None:
        same = [axis == 0 and size == length for axis, size in enumerate(spec.shape)]
    else:
        same = [other == symbol for other in spec.symbols]
    return [batch if is_batch else size for size, is_batch in zip(spec.shape, same, strict=True)]


def _run(model: Program, graph: Graph, batch: int, max_bytes: int) -> int:
    """The most bytes that a batch holds."""
    try:
        registers = started(batched(graph, batch))
    except (RuntimeError, OverflowError, MemoryError) as error:
        raise ProgramError(f"the inputs cannot be made: {_reason(error)}") from error
    held = _Held(max_bytes)
    for place in range(len(graph.inputs)):
        held.add(place, registers, "the inputs")
    for step in steps(model):
        _take(model, step, registers, batch, graph)
        for place in step.results:
            held.add(place, registers, step.node)
        for place in step.frees:
            held.remove(place)
    result, *_ = results(model, registers)
    if not result.dim() or len(result) != batch:
        raise ProgramError(
            f"a batch of {batch} gives results of shape {list(result.shape)}: {batch} was wanted "
            f"first.{_advice(graph)}"
        )
    return held.most


def _take(model: Program, step: Step, registers: dict[int, Any], batch: int, graph: Graph) -> None:
    try:
        take(model, step, registers)
    except Exception as error:
        raise ProgramError(
            f"node {step.node} fails for a batch of {batch}: {_reason(error)}{_advice(graph)}"
        ) from error


def _advice(graph: Graph) -> str:
    spec = graph.spec(graph.inputs[0])
    if spec.symbols[0] is not None:
        return ""
    return (
        f" The program was exported for a first axis of {spec.shape[0]}: export it with "
        "dynamic_shapes=({0: torch.export.Dim('batch', min=1, max=4096)},)"
    )


def _reason(error: BaseException) -> str:
    first, _, _ = str(error).strip().partition("\n")
    return f"{type(error).__name__}: {first[:REASON_LENGTH]}."


class _Held:
    """Bytes of the storages that values in registers hold; views of one count once."""

    def __init__(self, max_bytes: int) -> None:
        self.most = 0
        self._max_bytes = max_bytes
        self._now = 0
        self._users: Counter[int] = Counter()
        self._storages: dict[int, tuple[int, int]] = {}  # place -> its storage, and the bytes

    def add(self, place: int, registers: Mapping[int, Any], node: str) -> None:
        value = registers.get(place)
        if not isinstance(value, Tensor):
            return
        storage = value.untyped_storage()
        self._storages[place] = (storage._cdata, storage.nbytes())
        self._users[storage._cdata] += 1
        if self._users[storage._cdata] == 1:
            self._now += storage.nbytes()
        self.most = max(self.most, self._now)
        if self._now > self._max_bytes:
            raise ProgramError(
                f"node {node} makes the network hold {self._now} bytes for a small batch, at most "
                f"{self._max_bytes} were wanted: declare smaller inputs"
            )

    def remove(self, place: int) -> None:
        if place not in self._storages:
            return
        storage, size = self._storages.pop(place)
        self._users[storage] -= 1
        if not self._users[storage]:
            self._now -= size
