"""Which nodes of a graph are layers, and under which of the network's names they stand.

A layer owns its tensors: nothing else stands under its name, and only layers read them. Where one
set of tensors stands under several names, that is one layer under all of them.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from torch import Tensor, nn

from compress.program.arguments import Reference, references
from compress.program.calls import completed
from compress.program.graph import Graph, Node
from compress.program.operators import ATEN, TENSORS
from compress.program.recipes import Call, Recipe, recipe_of

COUNTER: Final = "num_batches_tracked"  # batch norm counts by itself
COUNTING: Final = f"{ATEN}add_.Tensor"

# What arguments that no layer takes lead to. The node stays a call, which fails in the trial.
FAULTS: Final = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer, the nodes that call it, and where it stands in the network."""

    module: nn.Module
    recipes: dict[int, Recipe]
    """By the places of the nodes in the graph."""
    names: tuple[str, ...]
    """None for a layer without tensors."""


@dataclass(slots=True)
class _Group:
    """Nodes with the same tensors of their own, and the names that these stand under."""

    tensors: set[int]
    names: tuple[str, ...]
    layers: list[tuple[nn.Module, dict[int, Recipe]]] = field(default_factory=list)

    def add(self, place: int, recipe: Recipe, module: nn.Module) -> None:
        """One more node: a call of a layer that is known, or of a new one."""
        for _, recipes in self.layers:
            known = next(iter(recipes.values()))
            if (known.kind, known.settings) == (recipe.kind, recipe.settings):
                recipes[place] = recipe
                return
        self.layers.append((module, {place: recipe}))

    def named(self) -> Iterator[Layer]:
        """Each layer with a name of its own, the last one with those that are left."""
        for i, (module, recipes) in enumerate(self.layers):
            end = i + 1 if i + 1 < len(self.layers) else None
            yield Layer(module, recipes, self.names[i:end])


def lift(graph: Graph, tensors: Mapping[str, Tensor]) -> list[Layer]:
    """The layers of a graph.

    Args:
        graph: what the network computes.
        tensors: of the network, by their names in it; tied ones are one tensor.

    Raises:
        ProgramError: a node has arguments that its operator does not take.
    """
    values = {name: tensors[own] for name, own in graph.state.items() if own in tensors}
    owners = _Owners(tensors)
    layers: list[Layer] = []
    groups: dict[frozenset[tuple[str, int]], _Group] = {}
    for place, node in enumerate(graph.nodes):
        recipe = _recipe(graph, node, values)
        if recipe is None:
            continue
        own = {name: values[value] for name, value in recipe.tensors.items()}
        names = owners.of(own)
        module = _module(recipe, own)
        if module is None:
            continue
        if not own:
            layers.append(Layer(module, {place: recipe}, ()))
        elif names:
            if COUNTER in module._buffers:
                module._buffers[COUNTER] = tensors.get(f"{names[0]}.{COUNTER}")
            key = frozenset((name, id(tensor)) for name, tensor in own.items())
            group = groups.setdefault(key, _Group({identity for _, identity in key}, names))
            group.add(place, recipe, module)
    kept = [group for group in groups.values() if len(group.layers) <= len(group.names)]
    return [*layers, *(layer for group in _unread(graph, values, kept) for layer in group.named())]


def counted(graph: Graph, node: Node) -> str | None:
    """The name of the counter that a node adds to, as batch norm does in train mode."""
    counter = node.arguments.get("self")
    if node.operator == COUNTING and isinstance(counter, Reference):
        name = graph.state.get(counter.name, "")
        if name.endswith(f".{COUNTER}"):
            return name
    return None


class _Owners:
    """Which names of modules a set of tensors stands under."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._names: dict[int, list[str]] = defaultdict(list)  # of each tensor
        self._entries: dict[str, dict[str, Tensor]] = defaultdict(dict)  # of each module
        for name, tensor in tensors.items():
            owner, _, entry = name.rpartition(".")
            self._names[id(tensor)].append(name)
            self._entries[owner][entry] = tensor
        self._parents = {
            owner[:i] for owner in self._entries for i, sign in enumerate(owner) if sign == "."
        }

    def of(self, own: Mapping[str, Tensor]) -> tuple[str, ...]:
        """The modules that hold these tensors under these names, and nothing besides."""
        if not own:
            return ()
        first, tensor = next(iter(own.items()))
        modules = (name.rpartition(".") for name in self._names[id(tensor)])
        return tuple(
            owner for owner, _, entry in modules if entry == first and self._is(owner, own)
        )

    def _is(self, owner: str, own: Mapping[str, Tensor]) -> bool:
        entries = self._entries[owner]
        return (
            owner != ""
            and owner not in self._parents
            and entries.keys() - {COUNTER} == own.keys()
            and all(entries[name] is tensor for name, tensor in own.items())
        )


def _recipe(graph: Graph, node: Node, values: Mapping[str, Tensor]) -> Recipe | None:
    if node.operator not in TENSORS or not node.results:
        return None
    name = node.operator.removeprefix(ATEN).partition(".")[0]
    axes = len(graph.spec(node.results[0]).shape)
    call = Call(name, completed(node), values, axes)
    try:
        return recipe_of(call)
    except FAULTS:
        return None


def _module(recipe: Recipe, own: Mapping[str, Tensor]) -> nn.Module | None:
    """The layer with its tensors; None where they are not those that torch gives it."""
    if not all(tensor.numel() for tensor in own.values()):
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # of what its author was warned of
            module = recipe.kind(**recipe.settings, **({"device": "meta"} if own else {}))
    except FAULTS:
        return None
    wanted = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    wanted.pop(COUNTER, None)
    if wanted.keys() != own.keys():
        return None
    for name, tensor in own.items():
        is_parameter = isinstance(tensor, nn.Parameter)
        if tensor.shape != wanted[name].shape or is_parameter != (name in module._parameters):
            return None
        setattr(module, name, tensor)
    return module


def _unread(graph: Graph, values: Mapping[str, Tensor], groups: list[_Group]) -> list[_Group]:
    """The groups whose tensors no call reads: one that is replaced would take them away."""
    while True:
        called = {place for group in groups for _, recipes in group.layers for place in recipes}
        read = {
            id(values[name])
            for place, node in enumerate(graph.nodes)
            if place not in called and counted(graph, node) is None
            for name in references(node.arguments)
            if name in values
        }
        kept = [group for group in groups if not group.tensors & read]
        if len(kept) == len(groups):
            return kept
        groups = kept
