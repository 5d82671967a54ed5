"""The channel groups of a network.

Any channel of a group can be taken out, in the layer that makes it, in the norms and depthwise
convolutions that it passes, and in the layer that reads it; the rest of the network sees nothing of
it. Channels that are added to others, or read twice, belong to no group here. Found by symbolic
tracing, as `compress.flow` does it, and then tried: what the network's code says by numbers, a
`view` to a fixed size say, no trace tells.
"""

import copy
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.nn import functional as F

from compress.calibration import evaluating, watching
from compress.flow import traced, untouched
from compress.folding import NORMS
from compress.layers import shape_of
from compress.pieces import is_linear
from compress.shape import ConvShape, LinearShape, TransposedShape, inputs_of, outputs_of
from compress.widths.group import ChannelGroup
from compress.widths.narrowing import narrow_

# What leaves channels apart: each output channel depends on the input channel of its number.
MODULES: Final = (
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool2d),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    *(nn.CELU, nn.ELU, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.Mish),
    *(nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Tanh),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Flatten, nn.Identity),
)
FUNCTIONS: Final = (
    *(F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
    *(F.max_pool1d, F.max_pool2d, F.max_pool3d, F.dropout, F.dropout2d),
    *(F.elu, F.gelu, F.hardsigmoid, F.hardswish, F.hardtanh, F.leaky_relu, F.mish, F.relu),
    *(F.relu6, F.selu, F.silu, F.softplus, torch.relu, torch.sigmoid, torch.tanh, torch.flatten),
)
METHODS: Final = ("contiguous", "flatten", "mean", "relu", "reshape", "sigmoid", "tanh", "view")
SIZES: Final = ("dim", "size")  # what asks a tensor for its shape, and takes in none of its values


@dataclass(frozen=True, slots=True)
class ChannelGroups:
    """Those of a network, and why other layers' channels are in none."""

    groups: tuple[ChannelGroup, ...] = ()
    """In forward order."""
    refusals: dict[str, str] = field(default_factory=dict)
    """Layer -> why its output channels cannot be taken out; of all layers if its name is ""."""

    @classmethod
    def of(cls, model: nn.Module, example: Tensor) -> "ChannelGroups":
        """Trace a copy of `model`, and try each group on the example.

        Args:
            model: dense, in whatever mode; left as it is.
            example: a batch (N, ...) of inputs.
        """
        graph = traced(model)
        if isinstance(graph, str):
            return cls(refusals={"": graph})
        groups, refusals = [], {}
        alone = untouched(model, graph)
        for node in graph.nodes:
            if node.target in alone and _has_channels(model.get_submodule(node.target)):
                found = _group(model, node, alone)
                if isinstance(found, ChannelGroup):
                    found = _fault(model, found, example) or found
                if isinstance(found, str):
                    refusals[node.target] = found
                else:
                    groups.append(found)
        return cls(tuple(groups), refusals)


def _has_channels(module: nn.Module) -> bool:
    """Whether the module is a plain layer all of whose outputs may be taken out one by one."""
    if not is_linear(module):
        return False
    shape = shape_of(module)
    if isinstance(shape, TransposedShape):
        return False
    return isinstance(shape, LinearShape) or shape.groups == 1


def _group(model: nn.Module, node: Node, alone: set[Any]) -> ChannelGroup | str:
    """Whose outputs `node` are: the group, or why they are in none."""
    producer, followers = str(node.target), list[str]()
    channels = outputs_of(shape_of(model.get_submodule(producer)))
    while True:
        readers = [user for user in node.users if not _asks_for_size(user)]
        if len(readers) != 1:
            return f"{len(readers)} operations read its outputs; one was wanted"
        (node,) = readers
        if node.op == "output":
            return "its outputs are the network's answers"
        if node.op != "call_module":
            if node.target in (METHODS if node.op == "call_method" else FUNCTIONS):
                continue
            name = getattr(node.target, "__name__", node.target)
            return f"{name} takes in its outputs, which may mix channels"
        name, module = str(node.target), model.get_submodule(str(node.target))
        if type(module) in MODULES:
            continue
        if node.target not in alone:
            return f"{name} takes in its outputs, and is called or shared elsewhere too"
        if type(module) in NORMS or _is_depthwise(module):
            followers.append(name)
        elif _has_channels(module) and inputs_of(shape_of(module)) % channels == 0:
            return ChannelGroup(producer, tuple(followers), name, channels)
        else:
            return f"{name}, {type(module).__name__}, takes in its outputs, and may mix channels"


def _asks_for_size(node: Node) -> bool:
    if node.op == "call_method":
        return node.target in SIZES
    return node.target is getattr and node.args[1:] == ("shape",)


def _is_depthwise(module: nn.Module) -> bool:
    if not is_linear(module):
        return False
    shape = shape_of(module)
    if not isinstance(shape, ConvShape) or isinstance(shape, TransposedShape):
        return False
    return shape.groups == shape.in_channels == shape.out_channels


def _fault(model: nn.Module, group: ChannelGroup, example: Tensor) -> str | None:
    """Why the network does not work with half of the channels; None if it does.

    What enters the reader then has to be what entered it before, of those channels.
    """
    kept = torch.arange(0, group.channels, 2)
    narrowed = copy.deepcopy(model)
    narrow_(narrowed, group, kept)
    before = group.rows(model.get_submodule(group.reader), _entering(model, group.reader, example))
    try:
        after = _entering(narrowed, group.reader, example)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        first, _, _ = str(error).partition("\n")
        return f"without some of its outputs the network fails: {first}"
    part = replace(group, channels=len(kept))
    came, wanted = part.rows(narrowed.get_submodule(group.reader), after), before[:, kept]
    if came.shape != wanted.shape or not torch.allclose(came, wanted, rtol=1e-4, atol=1e-5):
        return f"{group.reader} does not take its outputs in channel by channel"
    return None


def _entering(model: nn.Module, name: str, example: Tensor) -> Tensor:
    """What enters a module when the network meets the example."""
    found: list[Tensor] = []
    with evaluating(model), watching({model.get_submodule(name): found.append}):
        model(example)
    return found[0]
