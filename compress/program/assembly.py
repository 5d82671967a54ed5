"""A graph and its tensors, put together to a network of torch's own layers."""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, Final

from torch import Tensor, nn

from compress.errors import ProgramError
from compress.program.arguments import Reference, Setting, Value, references
from compress.program.calls import DEVICE as INPUT_DEVICE
from compress.program.calls import function_of, objection, passed, real, writes
from compress.program.document import SHOWN
from compress.program.graph import Graph, Node
from compress.program.lift import Layer, counted, lift
from compress.program.operators import ATEN
from compress.program.recipes import Recipe
from compress.program.steps import DEVICE, Attribute, Program, Register, Step

ZEROS: Final = frozenset(f"{ATEN}{name}.default" for name in ("new_zeros", "zeros", "zeros_like"))
NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")
MAX_DEPTH: Final = 64


def assemble(graph: Graph, tensors: Mapping[str, Tensor], persistent: Set[str]) -> Program:
    """The network of a graph, in eval mode; tensors that are tied are one parameter.

    Args:
        graph: what it computes.
        tensors: parameters, buffers and constants by their names in the network.
        persistent: the names of those that its state dict holds.

    Raises:
        ProgramError: names that no module can have, or arguments that an operator does not take.
    """
    if missing := sorted(set(graph.state.values()) - tensors.keys()):
        raise ProgramError(f"the archive holds no tensor {missing[0][:SHOWN]!r}")
    layers = lift(graph, {name: tensors[name] for name in tensors if name in persistent})
    layers = _with_names(layers, {name.partition(".")[0] for name in tensors})
    writer = _Writer(graph, layers)
    model = Program(len(graph.inputs), writer.steps(), writer.outputs)
    modules = {name: layer.module for layer in layers for name in layer.names}
    for name, tensor in tensors.items():
        _put_(model, name, tensor, modules, name in persistent)
    for name, module in modules.items():
        if name not in model._modules and "." not in name:  # it has no tensors
            model.add_module(name, module)
    return model.eval()


def _with_names(layers: Iterable[Layer], taken: Set[str]) -> list[Layer]:
    """Names for the layers without tensors, which the archive tells only in its stack traces."""
    names = (name for i in itertools.count() if (name := f"dropout_{i}") not in taken)
    return [layer if layer.names else replace(layer, names=(next(names),)) for layer in layers]


def _put_(
    model: nn.Module, name: str, tensor: Tensor, layers: Mapping[str, nn.Module], persistent: bool
) -> None:
    """Put a tensor, or the layer that owns it, under its name."""
    *path, entry = name.split(".")
    if len(path) > MAX_DEPTH or not all(NAME.fullmatch(part) for part in (*path, entry)):
        raise ProgramError(f"a tensor is named {name[:SHOWN]!r}, which no module of torch is")
    try:
        for i, part in enumerate(path):
            if part not in model._modules:
                owner = ".".join(path[: i + 1])
                model.add_module(part, layers.get(owner, nn.Module()))
            model = model.get_submodule(part)
        if ".".join(path) in layers:
            return
        if isinstance(tensor, nn.Parameter):
            model.register_parameter(entry, tensor)
        else:
            model.register_buffer(entry, tensor, persistent=persistent)
    except KeyError as error:
        raise ProgramError(
            f"a tensor is named {name[:SHOWN]!r}: {error.args[0][:SHOWN]}, rename it"
        ) from error


class _Writer:
    """Nodes as steps."""

    def __init__(self, graph: Graph, layers: Sequence[Layer]) -> None:
        self._graph = graph
        self._recipes = {
            place: (layer.names[0], recipe)
            for layer in layers
            for place, recipe in layer.recipes.items()
        }
        self._owners = {name for layer in layers for name in layer.names}
        self._free = len(graph.inputs)  # the first place that nothing goes to yet
        self._arguments: dict[str, Register | Attribute] = {
            **{name: _attribute(source) for name, source in graph.state.items()},
            **{name: Register(place) for place, name in enumerate(graph.inputs)},
        }
        self._readers: dict[str, set[int]] = defaultdict(set)
        for place, node in enumerate(graph.nodes):
            for name in references(node.arguments):
                self._readers[name].add(place)
        self._made_of_zeros = {
            name for node in graph.nodes if node.operator in ZEROS for name in node.results
        }

    def steps(self) -> list[Step]:
        """The steps that matter, each with the places that it is the last to read."""
        written = [
            (self._step(place, node), writes(node))
            for place, node in enumerate(self._graph.nodes)
            if not self._counts(node)
        ]
        needed = {DEVICE, *_places(self.outputs)}
        kept = []
        for step, changes in reversed(written):
            if callable(step.target) and not changes and needed.isdisjoint(step.results):
                continue
            reads = {*_places(step.args), *_places(step.kwargs.values())}
            frees = (reads | {*step.results}) - needed
            needed |= reads
            kept.append(replace(step, frees=tuple(sorted(frees))))
        return kept[::-1]

    @property
    def outputs(self) -> tuple[Any, ...]:
        """What the network returns, as arguments."""
        return self._argument(tuple(Reference(name) for name in self._graph.outputs))

    def _step(self, place: int, node: Node) -> Step:
        target: Any
        kwargs: dict[str, Any] = {}
        if place in self._recipes:
            name, recipe = self._recipes[place]
            target, args = tuple(name.split(".")), self._inputs(recipe)
        elif reason := objection(node):
            raise ProgramError(f"node {node.name[:SHOWN]!r} ({node.operator}): {reason}")
        else:
            target, (args, kwargs) = function_of(node.operator), passed(node)
        args = self._argument(tuple(args))
        kwargs = {key: self._argument(value) for key, value in kwargs.items()}
        results = range(self._free, self._free + len(node.results))
        self._free += len(results)
        self._arguments.update(zip(node.results, map(Register, results), strict=True))
        said = f"{node.name[:SHOWN]!r} ({node.operator})"
        return Step(said, target, args, kwargs, tuple(results), node.unpacked)

    def _inputs(self, recipe: Recipe) -> list[Value]:
        """What a layer is called with; the zeros that an exporter made would fix the batch."""
        states = [*references(recipe.initial)]
        if recipe.initial is None or (states and all(map(self._zeros, states))):
            return [*recipe.inputs]
        return [*recipe.inputs, recipe.initial]

    def _zeros(self, name: str) -> bool:
        """Whether a value is zeros that nothing but recurrent layers sees."""
        return name in self._made_of_zeros and self._readers[name] <= self._recipes.keys()

    def _counts(self, node: Node) -> bool:
        """Whether a node counts a batch, which batch norm does by itself."""
        name = counted(self._graph, node)
        if name is None or name.rpartition(".")[0] not in self._owners:
            return False
        self._arguments.update(dict.fromkeys(node.results, _attribute(name)))
        return True

    def _argument(self, value: Any) -> Any:
        """A value of the graph as a step takes it."""
        if isinstance(value, tuple):
            return tuple(self._argument(entry) for entry in value)
        if isinstance(value, Reference):
            return self._arguments[value.name]
        if isinstance(value, Setting):
            return Register(DEVICE) if value == INPUT_DEVICE else real(value)
        return value


def _attribute(name: str) -> Attribute:
    *path, entry = name.split(".")
    return Attribute(tuple(path), entry)


def _places(arguments: Iterable[Any]) -> Iterator[int]:
    """The places that arguments read."""
    for argument in arguments:
        if isinstance(argument, Register):
            yield argument.place
        elif isinstance(argument, tuple):
            yield from _places(argument)
