"""Who reads what: the modules of a network whose output one other module alone takes in.

Found by symbolic tracing (Reed et al., "torch.fx: Practical Program Capture and Transformation for
Deep Learning in Python", 2022), never by the order in which modules stand: what a module puts out
may be added to something else on the way, or be read twice.
"""

import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self

from torch import Tensor, nn
from torch.fx import Graph, Node, Tracer

from compress.calibration import evaluating
from compress.layers import stands_in


@dataclass(frozen=True, slots=True)
class Flow:
    """The links of a network in eval mode, dense or factorised: factorising changes none."""

    readers: Mapping[str, str] = field(default_factory=dict)
    """Module -> the one module that reads its output. Nothing else reads that, both have one name,
    are called once, have no hooks, and share no parameters with anything."""
    axes: Mapping[str, int] = field(default_factory=dict)
    """Module of `readers` -> axes of its output, that of the batch counted."""
    reason: str | None = None
    """Why no link is known, where the network cannot be traced."""

    @classmethod
    def of(cls, model: nn.Module, example: Tensor) -> Self:
        """Trace a copy of `model`, and run the model once.

        Args:
            model: left as it is.
            example: a batch (N, ...) of inputs.
        """
        graph = traced(model)
        if isinstance(graph, str):
            return cls(reason=graph)
        readers = dict(_links(model, graph))
        with evaluating(model):
            return cls(readers, _axes(model, readers, example))


def traced(model: nn.Module) -> Graph | str:
    """What the network calls, in eval mode, down to torch's modules; or why it cannot be traced."""
    with evaluating(model):
        try:
            return _Tracer().trace(copy.deepcopy(model))
        except Exception as error:  # any that the network's own code raises at a symbol
            first, _, _ = str(error).partition("\n")
            return f"it cannot be traced: {type(error).__name__}: {first}"


class _Tracer(Tracer):
    """Steps into modules made of others, but not into torch's own, nor into factorised layers."""

    proxy_buffer_attributes = True  # a buffer that is read outside its module is seen

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        single = stands_in(m) or next(m.children(), None) is None
        return single or super().is_leaf_module(m, module_qualified_name)


def _links(model: nn.Module, graph: Graph) -> Iterator[tuple[str, str]]:
    alone = untouched(model, graph)
    for node in graph.nodes:
        readers = list(node.users)
        if node.target in alone and len(readers) == 1 and _reads(readers[0], node, alone):
            yield node.target, readers[0].target


def _reads(reader: Node, node: Node, alone: set[Any]) -> bool:
    return reader.target in alone and reader.args == (node,) and not reader.kwargs


def untouched(model: nn.Module, graph: Graph) -> set[Any]:
    """The modules that can be replaced without anybody else seeing it."""
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    values = [node.target for node in graph.nodes if node.op == "get_attr"]
    modules = dict(model.named_modules(remove_duplicate=False))
    names = Counter(modules.values())
    holders = Counter(
        tensor
        for module in names
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
    )
    return {
        name
        for name, count in calls.items()
        if count == 1
        and all(names[m] == 1 for m in modules[name].modules())
        and all(holders[t] == 1 for t in (*modules[name].parameters(), *modules[name].buffers()))
        and not any(m._forward_hooks or m._forward_pre_hooks for m in modules[name].modules())
        and not any(value.startswith(f"{name}.") for value in values)
    }


def _axes(model: nn.Module, readers: Mapping[str, str], example: Tensor) -> dict[str, int]:
    axes: dict[str, int] = {}

    def record(name: str, output: object) -> None:
        if isinstance(output, Tensor):
            axes[name] = output.ndim

    with ExitStack() as stack:
        for name in readers:
            hook = model.get_submodule(name).register_forward_hook(
                lambda _module, _inputs, output, name=name: record(name, output)
            )
            stack.callback(hook.remove)
        model(example)
    return axes
