"""Take channels out of a group, in the modules of a network."""

from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from compress.catalog import Row
from compress.folding import NORMS, Norm
from compress.kernels import kernel_of
from compress.layers import shape_of
from compress.pieces import plain_layer
from compress.shape import ConvShape, LayerShape
from compress.widths.group import ChannelGroup


def narrow_(
    model: nn.Module, group: ChannelGroup, kept: Tensor, mixing: Tensor | None = None
) -> None:
    """Keep some channels of a group alone; what replaces a module shares no storage with it.

    Args:
        model: with the group's modules as they were found, or narrowed by other groups.
        group: of the channels.
        kept: (k,) numbers of channels, in the order that they are to have.
        mixing: (C, k), each channel as a sum of those that are kept, which the reader takes in
            their place; without it the others count as zero.
    """
    for name in (group.producer, *group.followers):
        model.set_submodule(name, _part(model.get_submodule(name), kept))
    reader = model.get_submodule(group.reader)
    if mixing is None:
        weight = reader.get_parameter("weight")
        mixing = torch.eye(group.channels, dtype=weight.dtype, device=weight.device)[:, kept]
    model.set_submodule(group.reader, _mixed(reader, group.channels, mixing))


def _part(module: nn.Module, kept: Tensor) -> nn.Module:
    """The module for some of the channels that it puts out."""
    if isinstance(module, NORMS):
        return _norm(module, kept)
    shape, bias = shape_of(module), _bias(module)
    kernel = kernel_of(shape, module.get_parameter("weight"))
    narrow = _narrow_outputs(shape, len(kept))
    part = plain_layer(narrow, kernel[kept], None if bias is None else bias[kept], like=module)
    return _marked(part)


def _narrow_outputs(shape: LayerShape, outputs: int) -> LayerShape:
    if not isinstance(shape, ConvShape):
        return replace(shape, out_features=outputs)
    if shape.groups == 1:
        return replace(shape, out_channels=outputs)
    return replace(shape, in_channels=outputs, out_channels=outputs, groups=outputs)


def _norm(norm: Norm, kept: Tensor) -> nn.Module:
    part = type(norm)(**{**_arguments(norm), "num_features": len(kept)})
    state = {
        key: value[kept].clone() if value.ndim else value.clone()
        for key, value in norm.state_dict().items()
    }
    part.load_state_dict(state, assign=True)
    for key, parameter in part.named_parameters():
        parameter.requires_grad_(norm.get_parameter(key).requires_grad)
    return _marked(part.train(norm.training))


def _mixed(reader: nn.Module, channels: int, mixing: Tensor) -> nn.Module:
    """The reader of the channels that are kept; `mixing` (C, k)."""
    shape, bias = shape_of(reader), _bias(reader)
    kernel = kernel_of(shape, reader.get_parameter("weight"))  # (O, C, *kernel), or (O, C * P)
    by_channel = kernel.reshape(len(kernel), channels, -1)
    found = torch.einsum("ocp,ck->okp", by_channel, mixing.to(by_channel))
    if isinstance(shape, ConvShape):
        narrow: LayerShape = replace(shape, in_channels=mixing.shape[1])
        found = found.reshape(len(kernel), -1, *shape.kernel_size)
    else:
        narrow = replace(shape, in_features=found.shape[1] * found.shape[2])
        found = found.flatten(1)
    return _marked(plain_layer(narrow, found, bias, like=reader))


def _bias(layer: nn.Module) -> Tensor | None:
    return layer.get_parameter("bias") if shape_of(layer).bias else None


def _marked(module: nn.Module) -> nn.Module:
    """With the mark by which `is_narrowed` knows it."""
    module.narrowed = True  # type: ignore[assignment]
    return module


def row_of(module: nn.Module) -> Row:
    """What `load.build_stand_in` makes a narrowed module from: one layer without a name."""
    if isinstance(module, NORMS):
        return Row("", type(module).__name__, _arguments(module))
    shape = shape_of(module)
    return Row("", shape.type, asdict(shape))


def _arguments(norm: Norm) -> dict[str, Any]:
    names = ("num_features", "eps", "momentum", "affine", "track_running_stats")
    return {name: getattr(norm, name) for name in names}


def is_narrowed(module: nn.Module) -> bool:
    """Whether the module has fewer channels than the one that it stands in place of."""
    return getattr(module, "narrowed", False) is True
