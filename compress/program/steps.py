"""A network as the steps of a program: what `read_program` makes of a graph.

No source code is made of it, and what the archive calls a node appears in messages alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor, nn

DEVICE: Final = -1  # the place of the device that the inputs are on


@dataclass(frozen=True, slots=True)
class Register:
    """An argument: the result of an earlier step, by its place."""

    place: int


@dataclass(frozen=True, slots=True)
class Attribute:
    """An argument: a tensor of the network, by the modules on the way and its own name."""

    path: tuple[str, ...]
    name: str


@dataclass(frozen=True, slots=True)
class Step:
    """One call of an operator, or of a layer of the network."""

    node: str
    target: Callable[..., Any] | tuple[str, ...]
    """An operator, or the modules on the way to a layer."""
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    results: tuple[int, ...]
    """Places that the results go to."""
    unpacked: bool
    """Whether they are the entries of what is returned."""
    frees: tuple[int, ...] = ()
    """Places that are read for the last time."""


class Program(nn.Module):
    """A network that takes one step after the other, its layers under their original names.

    It takes its inputs by position, and returns one tensor or a tuple of them.
    """

    def __init__(self, inputs: int, steps: Sequence[Step], outputs: tuple[Any, ...]) -> None:
        super().__init__()
        # Their names are none that an author gives to layers.
        self._program_inputs = inputs
        self._program_steps = tuple(steps)
        self._program_outputs = outputs

    def forward(self, x: Tensor, *more: Tensor) -> Tensor | tuple[Tensor, ...]:
        inputs = (x, *more)  # torch.export asks for the dynamic shape of each that has a name
        if len(inputs) != self._program_inputs:
            raise ValueError(f"{len(inputs)} inputs came, {self._program_inputs} were wanted")
        registers = started(inputs)
        for step in self._program_steps:
            take(self, step, registers)
        found = results(self, registers)
        return found[0] if len(found) == 1 else found


def steps(model: Program) -> tuple[Step, ...]:
    """The steps of a program in their order."""
    return model._program_steps


def results(model: Program, registers: dict[int, Any]) -> tuple[Tensor, ...]:
    """What a program returns once its steps are taken."""
    return tuple(_filled(output, model, registers) for output in model._program_outputs)


def started(inputs: Sequence[Tensor]) -> dict[int, Any]:
    """Place -> value before the first step: the inputs from 0 on, and their device."""
    return {DEVICE: inputs[0].device, **dict(enumerate(inputs))}


def given(
    model: Program, step: Step, registers: dict[int, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments that a step calls its target with, by position and by name."""
    args = [_filled(argument, model, registers) for argument in step.args]
    return args, {key: _filled(value, model, registers) for key, value in step.kwargs.items()}


def take(model: Program, step: Step, registers: dict[int, Any]) -> None:
    """Call what a step calls, and keep what comes back for as long as a later step reads it.

    Args:
        model: whose layers and tensors the step may read.
        step: one of its steps.
        registers: place -> value, of the steps before.
    """
    args, kwargs = given(model, step, registers)
    target = step.target
    result = (_module(model, target) if isinstance(target, tuple) else target)(*args, **kwargs)
    if step.unpacked:
        registers.update(zip(step.results, _entries(result), strict=True))
    elif step.results:
        registers[step.results[0]] = result
    for place in step.frees:
        del registers[place]


def _filled(argument: Any, model: Program, registers: dict[int, Any]) -> Any:
    kind = type(argument)
    if kind is Register:
        return registers[argument.place]
    if kind is tuple:
        return [_filled(entry, model, registers) for entry in argument]
    if kind is Attribute:
        return getattr(_module(model, argument.path), argument.name)
    return argument


def _module(model: nn.Module, path: tuple[str, ...]) -> nn.Module:
    for name in path:
        model = model._modules[name]  # type: ignore[assignment]
    return model


def _entries(result: Any) -> Iterator[Any]:
    """The entries in a row: an LSTM returns its state as a tuple in a tuple."""
    for entry in result:
        if isinstance(entry, tuple):
            yield from entry
        else:
            yield entry
