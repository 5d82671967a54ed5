"""Batch norms in eval mode are scales and shifts: the layer before each can do them as well.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018, section 3.2.
"""

from dataclasses import replace
from typing import Final, TypeGuard

from torch import nn

from compress.flow import Flow
from compress.kernels import kernel_of, kernel_size
from compress.layers import shape_of
from compress.load import FactorizedLayer
from compress.pieces import assembled, is_linear, pieces_of, plain_layer
from compress.shape import ConvShape

Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d

NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)  # a subclass may compute otherwise


def folded(model: nn.Module, flow: Flow) -> dict[str, nn.Module]:
    """What to put where, so that no foldable batch norm is left: name -> module.

    A norm can be folded where it alone reads a plain or factorised layer, and the layer's outputs
    are its channels. Its scale and shift go into the layer's last stage; its own place takes a
    factorised layer without stages, an identity. What is found shares no storage with `model`.
    """
    found: dict[str, nn.Module] = {}
    for name in flow.readers:
        layer, reader = model.get_submodule(name), flow.readers.get(name)
        pieces = pieces_of(layer)
        while pieces and reader is not None:
            norm = model.get_submodule(reader)
            *_, (stage, last) = pieces.items()
            if _is_foldable(norm) and _is_followed(last, norm, flow.axes[name]):
                pieces = {**pieces, stage: _scaled(last, norm)}
                found[name] = assembled(layer, pieces)
                found[reader] = FactorizedLayer().train(norm.training)
            elif pieces_of(norm) != {}:
                break
            reader = flow.readers.get(reader)
    return found


def _is_foldable(module: nn.Module) -> TypeGuard[Norm]:
    """Whether the module is a batch norm that takes the statistics it has stored."""
    return (
        type(module) in NORMS
        and not module.training
        and module.running_mean is not None
        and module.running_var is not None
    )


def _is_followed(last: nn.Module, norm: Norm, axes: int) -> bool:
    """Whether the channels of the norm, the second of `axes` axes, are the outputs of `last`."""
    if not is_linear(last):
        return False
    shape = shape_of(last)
    expected = shape.axes + 2 if isinstance(shape, ConvShape) else 2
    return axes == expected and norm.num_features == kernel_size(shape)[0]


def _scaled(layer: nn.Module, norm: Norm) -> nn.Module:
    """The layer and the norm after it in one: scale (W x + b - mean) + shift."""
    shape = shape_of(layer)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    bias = -norm.running_mean.double()
    if shape.bias:
        bias = bias + layer.get_parameter("bias").double()
    if norm.affine:
        scale = scale * norm.weight.double()
    bias = bias * scale
    if norm.affine:
        bias = bias + norm.bias.double()
    kernel = kernel_of(shape, layer.get_parameter("weight").double())
    kernel = kernel * scale.reshape(-1, *[1] * (kernel.ndim - 1))
    return plain_layer(replace(shape, bias=True), kernel, bias, layer)
