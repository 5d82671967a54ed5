"""A program tried on fake tensors: what a run would hold, before memory is taken for one."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor

from compress.errors import ProgramError
from compress.program.document import SHOWN
from compress.program.graph import Graph
from compress.program.recurrent import check_shapes
from compress.program.specs import TensorSpec
from compress.program.steps import Program, given, results, started, steps, take

BATCHES: Final = (1, 3)
TOLERANCE: Final = 1e-3  # of the largest output, between one input alone and in a batch ...
ROUND_OFFS: Final = 16  # ... or so many of the dtype, where that is more
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
    with torch.no_grad(), unlogged():
        for batch in BATCHES:
            held = _Held(max_bytes)
            _outputs(model, graph, _inputs(graph, batch), held)
    if [tensor._version for tensor in tensors] != versions:
        raise ProgramError(
            "the network writes into its own tensors: export it after model.eval(), and let no "
            "call leave something for the next"
        )
    return held.most


def run(model: Program, graph: Graph) -> tuple[Tensor, Tensor]:
    """Run a program on random inputs: the first of a batch of one, and what comes out first.

    Raises:
        ProgramError: a node fails, or what comes out is not finite, or depends on the rest of
            the batch.
    """
    generator = torch.Generator().manual_seed(0)
    many = [
        x.normal_(generator=generator) if x.is_floating_point() else x
        for x in _inputs(graph, BATCHES[1])
    ]
    shapes = [x.shape for x in _inputs(graph, BATCHES[0])]
    one = [x[tuple(map(slice, shape))] for x, shape in zip(many, shapes, strict=True)]
    with torch.no_grad():
        alone, *_ = _outputs(model, graph, one)
        together, *_ = _outputs(model, graph, many)
    if not together.isfinite().all():
        raise ProgramError("the network returns NaN or infinity for random inputs")
    difference = (together[: BATCHES[0]].double() - alone.double()).abs().max()
    precision = torch.finfo(together.dtype).eps if together.is_floating_point() else 0
    if difference > max(TOLERANCE, ROUND_OFFS * precision) * together.double().abs().max():
        raise ProgramError(
            f"what the network returns for an input depends on the rest of its batch, by "
            f"{difference:.1e}.{_advice(graph)}"
        )
    return one[0], alone


@contextmanager
def unlogged() -> Iterator[None]:
    """Without the stack that torch logs of a node that fails, besides raising."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    disabled, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = disabled


def _inputs(graph: Graph, batch: int) -> list[Tensor]:
    """Zeros for every input, for a batch of this size.

    The batch is the first axis of the first input. Other inputs have it where the same symbol
    stands; in a program of fixed sizes, on their first axis where that has the same length.
    """
    declared = [graph.spec(name) for name in graph.inputs]
    if not declared[0].shape:
        raise ProgramError(f"input {graph.inputs[0][:SHOWN]!r} has no axes: a batch was wanted")
    try:
        return [
            torch.zeros(_shape(spec, declared[0], batch), dtype=getattr(torch, spec.dtype))
            for spec in declared
        ]
    except (RuntimeError, OverflowError) as error:
        raise ProgramError(f"the inputs cannot be made: {reason(error)}") from error


def _shape(spec: TensorSpec, first: TensorSpec, batch: int) -> list[int]:
    symbol, length = first.symbols[0], first.shape[0]
    if symbol is None:
        same = [axis == 0 and size == length for axis, size in enumerate(spec.shape)]
    else:
        same = [other == symbol for other in spec.symbols]
    return [batch if is_batch else size for size, is_batch in zip(spec.shape, same, strict=True)]


def _outputs(
    model: Program, graph: Graph, inputs: Sequence[Tensor], held: "_Held | None" = None
) -> tuple[Tensor, ...]:
    """What comes out, the first of it checked to have an entry for each input of the batch."""
    batch = len(inputs[0])
    registers = started(inputs)
    if held is not None:
        held.add(range(len(inputs)), registers, "the inputs")
    for step in steps(model):
        try:
            if held is not None:
                check_shapes(step.target, *given(model, step, registers))
            take(model, step, registers)
        except Exception as error:  # whatever torch raises
            raise ProgramError(
                f"node {step.node} fails for a batch of {batch}: {reason(error)}{_advice(graph)}"
            ) from error
        if held is not None:
            held.add(step.results, registers, f"node {step.node}")
            held.remove(step.frees)
    found = results(model, registers)
    if not found[0].numel() or not found[0].dim() or len(found[0]) != batch:
        raise ProgramError(
            f"a batch of {batch} gives results of shape {list(found[0].shape)}: one entry for "
            f"each of the batch was wanted.{_advice(graph)}"
        )
    return found


def _advice(graph: Graph) -> str:
    spec = graph.spec(graph.inputs[0])
    if spec.symbols[0] is not None:
        return ""
    return (
        f" The program was exported for a first axis of {spec.shape[0]}: export it with "
        "dynamic_shapes=({0: torch.export.Dim('batch', min=1, max=4096)},)"
    )


def reason(error: BaseException) -> str:
    """What torch says of a call that failed, cut short."""
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

    def add(self, places: Iterable[int], registers: Mapping[int, Any], source: str) -> None:
        """Count what was left in these places."""
        for place in places:
            value = registers.get(place)
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                self._storages[place] = (storage._cdata, storage.nbytes())
                self._now += 0 if self._users[storage._cdata] else storage.nbytes()
                self._users[storage._cdata] += 1
        self.most = max(self.most, self._now)
        if self._now > self._max_bytes:
            raise ProgramError(
                f"with {source}, a small batch holds {self._now} bytes, at most "
                f"{self._max_bytes} were wanted: declare smaller inputs"
            )

    def remove(self, places: Iterable[int]) -> None:
        """Count no more what stands in these places."""
        for place in places:
            if place in self._storages:
                storage, size = self._storages.pop(place)
                self._users[storage] -= 1
                self._now -= 0 if self._users[storage] else size
