"""The plain linear layers that a module consists of, and a module made of others."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict
from typing import Final

import torch
from torch import Tensor, nn

from compress.kernels import weight_of
from compress.layers import is_plain, shape_of, stands_in
from compress.load import LAYERS, FactorizedLayer
from compress.shape import LayerShape

WHOLE: Final = "layer"  # the stage of what was one dense layer

Pieces = Mapping[str, nn.Module]  # stage name -> plain layer, in the order of the calls


def pieces_of(module: nn.Module) -> Pieces | None:
    """The stages of a factorised layer, a plain layer as its only one, of an identity none.

    None for everything else.
    """
    if stands_in(module) and isinstance(module, nn.Sequential):
        return dict(module.named_children())
    if type(module) is nn.Identity:
        return {}
    return {WHOLE: module} if is_linear(module) else None


def is_linear(module: nn.Module) -> bool:
    """Whether the module is a plain convolution or Linear that holds its weight itself."""
    return is_plain(module) and isinstance(module._parameters.get("weight"), nn.Parameter)


def assembled(module: nn.Module, pieces: Pieces) -> nn.Module:
    """What takes the place of `module`: a plain layer for a plain one, if only its values differ.

    Else a factorised layer, of none or one piece too, since that is what a manifest describes.
    """
    if is_plain(module) and len(pieces) == 1:
        (piece,) = pieces.values()
        if shape_of(piece) == shape_of(module):
            return piece
    return FactorizedLayer(OrderedDict(pieces)).train(module.training)


def plain_layer(
    shape: LayerShape, kernel: Tensor, bias: Tensor | None, like: nn.Module
) -> nn.Module:
    """A plain layer with values of its own.

    Args:
        shape: of the layer.
        kernel: (O, I / G, *kernel) or (O, I), of any dtype.
        bias: (O,), None where the shape has none.
        like: a plain layer, whose dtype, device, mode and wish for gradients it gets.
    """
    source = like.get_parameter("weight")
    values = {"weight": weight_of(shape, kernel)} | ({} if bias is None else {"bias": bias})
    with torch.device("meta"):
        layer = LAYERS[shape.type](**asdict(shape))
    layer.load_state_dict(
        {key: value.detach().to(source).contiguous().clone() for key, value in values.items()},
        assign=True,
    )
    return layer.requires_grad_(source.requires_grad).train(like.training)
