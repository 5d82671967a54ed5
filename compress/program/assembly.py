"""A graph and its tensors, put together to a network of torch's own layers."""

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from compress.catalog import PROGRAM
from compress.errors import ProgramError
from compress.program.arguments import Reference, Setting, Value, references
from compress.program.calls import DEVICE as INPUT_DEVICE
from compress.program.calls import objection, passed, writes, written
from compress.program.document import SHOWN
from compress.program.graph import Graph, Node
from compress.program.lift import COUNTER, Layer, counted, lift
from compress.program.operators import ATEN, OPERATORS
from compress.program.recipes import Recipe
from compress.program.steps import DEVICE, Program, build, named, put_

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
    for name in tensors:
        _check_name(name)
    layers = lift(graph, {name: tensors[name] for name in tensors if name in persistent})
    layers = _with_names(layers, {name.partition(".")[0] for name in tensors})
    writer = _Writer(graph, layers)
    rows, nodes = writer.steps()
    document = {
        "registry": PROGRAM,
        "name": PROGRAM,
        "inputs": len(graph.inputs),
        **_described(layers, tensors, persistent),
        "steps": rows,
        "outputs": writer.outputs,
    }
    try:
        with torch.device("meta"):
            model = build(document, OPERATORS)
    except KeyError as error:
        raise ProgramError(
            f"a tensor is named as torch forbids: {error.args[0][:SHOWN]}; rename it"
        ) from error
    for name, tensor in tensors.items():
        put_(model, name, tensor)
    return named(model, nodes)


def _with_names(layers: Iterable[Layer], taken: Set[str]) -> list[Layer]:
    """Names for the layers without tensors, which the archive tells only in its stack traces."""
    names = (name for i in itertools.count() if (name := f"dropout_{i}") not in taken)
    return [layer if layer.names else replace(layer, names=(next(names),)) for layer in layers]


def _check_name(name: str) -> None:
    parts = name.split(".")
    if len(parts) > MAX_DEPTH or not all(NAME.fullmatch(part) for part in parts):
        raise ProgramError(f"a tensor is named {name[:SHOWN]!r}, which no module of torch is")


def _described(
    layers: Iterable[Layer], tensors: Mapping[str, Tensor], persistent: Set[str]
) -> dict[str, Any]:
    """The parts of the document that tell of tensors, in the order of these."""
    places = {name.rpartition(".")[0]: place for place, name in enumerate(tensors)}
    ordered = sorted(layers, key=lambda layer: places.get(layer.names[0], len(tensors)))
    owners = {name for layer in layers for name in layer.names}
    ties = defaultdict(list)
    for name, tensor in tensors.items():
        ties[id(tensor)].append(name)
    return {
        "layers": [_layer(layer) for layer in ordered],
        "tensors": [
            _tensor(name, tensor, name in persistent)
            for name, tensor in tensors.items()
            if name.rpartition(".")[0] not in owners
        ],
        "ties": [names for names in ties.values() if len(names) > 1],
    }


def _layer(layer: Layer) -> dict[str, Any]:
    recipe = next(iter(layer.recipes.values()))
    dtypes = {value.dtype for value in layer.module.state_dict().values()} - {torch.int64}
    return {
        "names": [*layer.names],
        "kind": recipe.kind.__name__,
        "settings": dict(recipe.settings),
        "dtype": next(map(_name_of, dtypes), None),
        "absent": [name for name in (COUNTER,) if layer.module._buffers.get(name, name) is None],
    }


def _tensor(name: str, tensor: Tensor, persistent: bool) -> dict[str, Any]:
    kind = "buffer" if persistent else "constant"
    return {
        "name": name,
        "shape": [*tensor.shape],
        "dtype": _name_of(tensor.dtype),
        "kind": "parameter" if isinstance(tensor, nn.Parameter) else kind,
    }


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


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
        self._arguments: dict[str, dict[str, Any]] = {
            **{name: {"tensor": source} for name, source in graph.state.items()},
            **{name: {"result": place} for place, name in enumerate(graph.inputs)},
        }
        self._readers: dict[str, set[int]] = defaultdict(set)
        for place, node in enumerate(graph.nodes):
            for name in references(node.arguments):
                self._readers[name].add(place)
        self._made_of_zeros = {
            name for node in graph.nodes if node.operator in ZEROS for name in node.results
        }

    def steps(self) -> tuple[list[dict[str, Any]], list[str]]:
        """The steps that matter, each with the places that it is the last to read; their nodes."""
        rows = [
            (self._step(place, node), node)
            for place, node in enumerate(self._graph.nodes)
            if not self._counts(node)
        ]
        needed = {DEVICE, *_places(self.outputs)}
        kept = []
        for row, node in reversed(rows):
            results = row["results"]
            if "operator" in row and not writes(node) and needed.isdisjoint(results):
                continue
            reads = {*_places(row["args"]), *_places(row["kwargs"].values())}
            frees = (reads | {*results}) - needed
            needed |= reads
            kept.append((row | {"frees": sorted(frees)}, node))
        ordered = kept[::-1]
        said = [f"{node.name[:SHOWN]!r} ({node.operator})" for _, node in ordered]
        return [row for row, _ in ordered], said

    @property
    def outputs(self) -> list[Any]:
        """What the network returns, as arguments."""
        return [self._arguments[name] for name in self._graph.outputs]

    def _step(self, place: int, node: Node) -> dict[str, Any]:
        kwargs: dict[str, Any] = {}
        if place in self._recipes:
            name, recipe = self._recipes[place]
            target, args = {"layer": name}, self._inputs(recipe)
        elif reason := objection(node):
            raise ProgramError(f"node {node.name[:SHOWN]!r} ({node.operator}): {reason}")
        else:
            target, (args, kwargs) = {"operator": node.operator}, passed(node)
        row: dict[str, Any] = target | {
            "args": [self._argument(value) for value in args],
            "kwargs": {key: self._argument(value) for key, value in kwargs.items()},
            "results": [*range(self._free, self._free + len(node.results))],
            "unpacked": node.unpacked,
        }
        self._free += len(node.results)
        self._arguments.update(
            zip(node.results, ({"result": place} for place in row["results"]), strict=True)
        )
        return row

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
        self._arguments |= {result: {"tensor": name} for result in node.results}
        return True

    def _argument(self, value: Value) -> Any:
        """A value of the graph as the document has it."""
        if isinstance(value, tuple):
            return [self._argument(entry) for entry in value]
        if isinstance(value, Reference):
            return self._arguments[value.name]
        if isinstance(value, Setting):
            return {"result": DEVICE} if value == INPUT_DEVICE else written(value)
        if isinstance(value, float) and math.isinf(value):
            return {"number": str(value)}
        return value


def _places(arguments: Iterable[Any]) -> Iterator[int]:
    """The places that arguments read."""
    for argument in arguments:
        if isinstance(argument, list):
            yield from _places(argument)
        elif isinstance(argument, dict) and "result" in argument:
            yield argument["result"]
