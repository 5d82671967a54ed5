"""A network as the steps of a program, described by a document: data, of which no code is made.

Ships with results as a file by itself, beside `load.py`: it imports torch alone, and is told which
operators there are. The document is JSON:

    inputs      how many tensors the network takes
    layers      of each layer of torch its names in the network, kind, settings, dtype (null where
                it has no tensors), and the entries of its state that it does without
    tensors     of each tensor that is no layer's its name, shape, dtype and kind: a constant is
                no part of the state dict
    ties        lists of names of tensors that are one
    steps       in their order, what each calls, with what, and where its results go
    outputs     what is returned

What stands for a value that JSON does not have is an object of one key: {"result": 3} the fourth
place, {"tensor": "cls"} a tensor of the network, {"dtype": "float32"}, {"memory_format":
"channels_last"}, {"number": "-inf"}.
"""

import math
import operator
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, nn

ATEN: Final = "torch.ops.aten."
SIZE: Final = f"{ATEN}sym_size.int"
DEVICE: Final = -1  # the place of the device that the inputs are on
MAX_NUMBER: Final = 2**62  # of what is computed from sizes

# The layers that a document may name.
KINDS: Final = """
    AlphaDropout BatchNorm1d BatchNorm2d BatchNorm3d Conv1d Conv2d Conv3d ConvTranspose1d
    ConvTranspose2d ConvTranspose3d Dropout Dropout1d Dropout2d Dropout3d Embedding
    FeatureAlphaDropout GRU GroupNorm InstanceNorm1d InstanceNorm2d InstanceNorm3d LSTM LayerNorm
    Linear PReLU RMSNorm RNN
"""
NUMBERS: Final = {"inf": math.inf, "-inf": -math.inf}

Path = tuple[str, ...]
"""The modules on the way from the network."""


@dataclass(frozen=True, slots=True)
class Register:
    """An argument: the result of an earlier step, by its place."""

    place: int


@dataclass(frozen=True, slots=True)
class Attribute:
    """An argument: a tensor of the network, by the modules on the way and its own name."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class Step:
    """One call of an operator, or of a layer of the network."""

    target: Callable[..., Any] | Path
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    results: tuple[int, ...]
    """Places that the results go to."""
    unpacked: bool
    """Whether they are the entries of what is returned."""
    frees: tuple[int, ...]
    """Places that are read for the last time."""
    node: str = ""
    """As a message calls it."""


class Program(nn.Module):
    """A network that takes one step after the other, its layers under their original names.

    It takes its inputs by position, and returns one tensor or a tuple of them.
    """

    def __init__(self, document: Mapping[str, Any], steps: Sequence[Step]) -> None:
        super().__init__()
        # Their names are none that an author gives to layers.
        self._program_document = document
        self._program_steps = tuple(steps)
        self._program_outputs = tuple(_argument(output) for output in document["outputs"])

    def forward(self, x: Tensor, *more: Tensor) -> Tensor | tuple[Tensor, ...]:
        inputs = (x, *more)  # torch.export asks for the dynamic shape of each that has a name
        wanted = self._program_document["inputs"]
        if len(inputs) != wanted:
            raise ValueError(f"{len(inputs)} inputs came, {wanted} were wanted")
        return self._run(inputs)

    def _run(self, inputs: Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
        registers = started(inputs)
        for step in self._program_steps:
            take(self, step, registers)
        found = results(self, registers)
        return found[0] if len(found) == 1 else found


class _OfOneInput(Program):
    """What torch.fx can trace: of further inputs it makes one that is always there."""

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:  # type: ignore[override]
        return self._run((x,))


def build(document: Mapping[str, Any], operators: Collection[str]) -> Program:
    """The network that a document describes, in eval mode; constants are zeros.

    Args:
        document: as above.
        operators: the names of those that steps may call.

    Raises:
        ValueError: another kind of layer, or another operator.
        KeyError: a name that no module of torch can have.
    """
    kind = _OfOneInput if document["inputs"] == 1 else Program
    model = kind(document, [_step(row, operators) for row in document["steps"]])
    for row in document["layers"]:
        layer = _layer(row)
        for name in row["names"]:
            *path, last = name.split(".")
            _owner(model, path).add_module(last, layer)
    for row in document["tensors"]:
        *path, last = row["name"].split(".")
        values, owner = torch.zeros(row["shape"], dtype=_dtype(row["dtype"])), _owner(model, path)
        if row["kind"] == "parameter":
            owner.register_parameter(last, nn.Parameter(values, values.is_floating_point()))
        else:
            owner.register_buffer(last, values, persistent=row["kind"] == "buffer")
    for first, *others in document["ties"]:
        for other in others:
            put_(model, other, tensor_of(model, first))
    return model.eval()


def named(model: Program, nodes: Sequence[str]) -> Program:
    """The program itself, its steps called as these nodes in messages."""
    named_steps = zip(model._program_steps, nodes, strict=True)
    model._program_steps = tuple(replace(step, node=node) for step, node in named_steps)
    return model


def constants_of(model: Program) -> Iterator[str]:
    """The names of the tensors that are no part of the state dict."""
    return (row["name"] for row in document_of(model)["tensors"] if row["kind"] == "constant")


def tensor_of(model: nn.Module, name: str) -> Tensor:
    """The tensor of this name."""
    *path, last = name.split(".")
    tensor: Tensor = getattr(_module(model, path), last)
    return tensor


def put_(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a tensor in place of the one of this name."""
    *path, last = name.split(".")
    setattr(_module(model, path), last, tensor)


def document_of(model: Program) -> Mapping[str, Any]:
    """What describes a program, or what was made of one by replacing layers, as it came."""
    return model._program_document


def steps(model: Program) -> tuple[Step, ...]:
    """The steps of a program in their order."""
    return model._program_steps


def results(model: Program, registers: dict[int, Any]) -> tuple[Tensor, ...]:
    """What a program returns once its steps are taken."""
    return tuple(_filled(output, model, registers) for output in model._program_outputs)


def started(inputs: Sequence[Tensor]) -> dict[int, Any]:
    """Place -> value before the first step: the inputs from 0 on, and their device."""
    return {DEVICE: inputs[0].device, **dict(enumerate(inputs))}


def take(model: Program, step: Step, registers: dict[int, Any]) -> None:
    """Call what a step calls, and keep what comes back for as long as a later step reads it.

    Args:
        model: whose layers and tensors the step may read.
        step: one of its steps.
        registers: place -> value, of the steps before.
    """
    args = [_filled(argument, model, registers) for argument in step.args]
    kwargs = {key: _filled(value, model, registers) for key, value in step.kwargs.items()}
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


def _module(model: nn.Module, path: Sequence[str]) -> nn.Module:
    for name in path:
        model = model._modules[name]  # type: ignore[assignment]
    return model


def _owner(model: nn.Module, path: Sequence[str]) -> nn.Module:
    """The module at the end of a path, made where there is none."""
    for name in path:
        if name not in model._modules:
            model.add_module(name, nn.Module())
        model = model._modules[name]  # type: ignore[assignment]
    return model


def _entries(result: Any) -> Iterator[Any]:
    """The entries in a row: an LSTM returns its state as a tuple in a tuple."""
    for entry in result:
        if isinstance(entry, tuple):
            yield from entry
        else:
            yield entry


def _layer(row: Mapping[str, Any]) -> nn.Module:
    if row["kind"] not in KINDS.split():
        raise ValueError(f"a layer is a {row['kind']!r}; known are {', '.join(KINDS.split())}")
    settings = {name: _tuple(value) for name, value in row["settings"].items()}
    if row["dtype"] is not None:
        settings["dtype"] = _dtype(row["dtype"])
    layer: nn.Module = getattr(nn, row["kind"])(**settings)
    for name in row["absent"]:
        setattr(layer, name, None)
    return layer


def _step(row: Mapping[str, Any], operators: Collection[str]) -> Step:
    layer = row.get("layer")
    return Step(
        function_of(row["operator"], operators) if layer is None else tuple(layer.split(".")),
        tuple(_argument(argument) for argument in row["args"]),
        {name: _argument(argument) for name, argument in row["kwargs"].items()},
        tuple(row["results"]),
        row["unpacked"],
        tuple(row["frees"]),
    )


def function_of(name: str, operators: Collection[str]) -> Callable[..., Any]:
    """The function that an operator of the table names.

    Raises:
        ValueError: it is not in the table.
    """
    if name not in operators:
        raise ValueError(f"a step calls {name[:80]!r}, which is none of {len(operators)} operators")
    if name == SIZE:
        return _size
    module, _, function = name.rpartition(".")
    if not name.startswith(ATEN):
        return _bounded(getattr(operator if module == "_operator" else torch, function))
    overload: Callable[..., Any] = getattr(
        getattr(torch.ops.aten, module.removeprefix(ATEN)), function
    )
    return overload


def _size(x: Tensor, axis: int) -> int:
    """A function, because torch.fx follows none of torch's methods."""
    return x.size(axis)


def _argument(argument: Any) -> Any:
    """An argument of a document as a step takes it."""
    if isinstance(argument, list):
        return tuple(_argument(entry) for entry in argument)
    if not isinstance(argument, Mapping):
        return argument
    ((kind, content),) = argument.items()
    if kind == "result":
        return Register(content)
    if kind == "tensor":
        *path, last = content.split(".")
        return Attribute(tuple(path), last)
    if kind == "number":
        return NUMBERS[content]
    return _dtype(content) if kind == "dtype" else _memory_format(content)


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"{name!r} is no dtype")
    return found


def _memory_format(name: str) -> torch.memory_format:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.memory_format):
        raise ValueError(f"{name!r} is no memory format")
    return found


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, on numbers that fit into 64 bits before and after."""

    def call(*numbers: Any) -> Any:
        result = function(*numbers)
        if type(result) is int and abs(result) > MAX_NUMBER:
            raise OverflowError(f"a size of {result.bit_length()} bits")
        return result

    return call
