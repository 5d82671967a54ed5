"""A network's ONNX graph with places for its layers: exported once, filled often.

torch's exporter takes seconds for a network, filling a graph milliseconds. The exporter notes on
each node the modules that it comes from. The nodes of one call of a layer are a place, all others
the frame; networks that differ in what stands in the places, and in their weights, share it.
"""

import ast
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from onnx import ModelProto, NodeProto
from torch import Tensor, nn

from compress.artifact import GRAPH
from compress.errors import ExportError
from compress.onnx.graph import Graph, as_weight, strip_
from compress.onnx.layers import is_writable, write
from compress.onnx.network import exported
from compress.surgery import ends_of, is_factorized

SCOPES = "pkg.torch.onnx.name_scopes"  # the note: names of modules, the outermost first


@dataclass(frozen=True, slots=True)
class Place:
    """One call of a layer: the value that it reads and the one that it puts out."""

    layer: str
    source: str
    target: str


class Template:
    """The frame of a network, its places empty.

    Args:
        model: dense, or factorised; on the CPU.
        example: a batch (N, ...) of inputs; its shape and dtype alone are read.

    Raises:
        ExportError: the nodes of a layer are no single path through the graph.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        self._model = exported(model, example, optimise=False)
        self._parts = list(_parts(self._model, set(_layers(model))))
        self._places = {part.layer for part in self._parts if isinstance(part, Place)}
        self._structure = _structure(model, self._places)
        strip_(self._model)

    def fits(self, model: nn.Module) -> bool:
        """Whether `model` differs from the template's in its places and in values alone.

        What a module computes beside its weights is not seen: whoever fills in a network that
        may compute something else compares the outputs.
        """
        found = _structure(model, self._places)
        return self._places <= set(_layers(model)) and found == self._structure

    def filled(self, model: nn.Module) -> ModelProto:
        """The graph of `model`, which fits."""
        graph, state = Graph(), model.state_dict()
        for part in self._parts:
            if isinstance(part, Place):
                end = write(graph, model.get_submodule(part.layer), part.layer, part.source)
                graph.add("Identity", [end], part.target)
            else:
                graph.nodes.append(part)
        read = {name for node in graph.nodes for name in node.input}
        for weight in self._model.graph.initializer:
            if weight.name in read and weight.name not in graph.weights:
                graph.weights[weight.name] = (
                    as_weight(weight.name, state[weight.name]) if weight.name in state else weight
                )
        (source,), (target,) = self._model.graph.input, self._model.graph.output
        return graph.model(source, target)


def _layers(model: nn.Module) -> Iterator[str]:
    """The names of what may stand in a place."""
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules(remove_duplicate=False):
        if inside and name.startswith(inside):
            continue
        if is_factorized(module):
            inside += (f"{name}.",)
        if is_writable(module):
            yield name


def _structure(model: nn.Module, places: set[str]) -> tuple[frozenset[Any], ...]:
    """What a network is outside the places: their ends, types of modules, shapes of weights."""
    inside = tuple(f"{name}." for name in places)
    return (
        frozenset(
            (name, ends_of(module))
            for name, module in model.named_modules(remove_duplicate=False)
            if name in places
        ),
        frozenset(
            (name, type(module))
            for name, module in model.named_modules(remove_duplicate=False)
            if name not in places and not name.startswith(inside)
        ),
        frozenset(
            (key, weight.shape)
            for key, weight in model.state_dict().items()
            if not key.startswith(inside)
        ),
    )


def _parts(model: ModelProto, layers: set[str]) -> Iterator[NodeProto | Place]:
    """The nodes of the frame and the places, in the order of the graph; constants come first."""
    nodes = sorted(model.graph.node, key=lambda node: node.op_type != "Constant")
    fixed = {weight.name for weight in model.graph.initializer}
    fixed |= {node.output[0] for node in nodes if node.op_type == "Constant"}
    readers = Counter(name for node in nodes for name in node.input)
    readers.update(value.name for value in model.graph.output)
    for layer, group in itertools.groupby(nodes, lambda node: _layer_of(node, layers)):
        if layer is None:
            yield from group
            continue
        part = list(group)
        read = Counter(name for node in part for name in node.input if name)
        made = {name for node in part for name in node.output}
        sources = [name for name in read if name not in made | fixed]
        targets = [name for name in made if readers[name] > read[name]]
        if len(sources) != 1 or len(targets) != 1:
            raise ExportError(
                f"the nodes of {layer!r} read {sources} and put out {targets}: "
                "one value each was wanted",
                GRAPH,
            )
        yield Place(layer, *sources, *targets)


def _layer_of(node: NodeProto, layers: set[str]) -> str | None:
    """The layer that a node is part of; constants are shared by all."""
    if node.op_type == "Constant":
        return None
    notes = {note.key: note.value for note in node.metadata_props}
    *scopes, _ = ast.literal_eval(notes.get(SCOPES, "['']"))  # the last is the operator's
    return next((scope for scope in scopes if scope in layers), None)
