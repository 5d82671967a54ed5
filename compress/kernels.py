"""The kernel of a layer, (O, I / G, *kernel), and how torch stores it.

A transposed convolution is a convolution of its input with zeros between the values, so it too has
a kernel; torch stores it with the channels the other way round, and with the places in reverse.
"""

from torch import Tensor

from compress.shape import ConvShape, LayerShape, TransposedShape


def kernel_size(shape: LayerShape) -> tuple[int, ...]:
    """(O, I / G, *kernel) of a convolution, (O, I) of a linear layer."""
    if isinstance(shape, ConvShape):
        return shape.out_channels, shape.in_channels // shape.groups, *shape.kernel_size
    return shape.out_features, shape.in_features


def weight_size(shape: LayerShape) -> tuple[int, ...]:
    """The shape of the layer's weight, (I, O / G, *kernel) of a transposed convolution."""
    if isinstance(shape, TransposedShape):
        return shape.in_channels, shape.out_channels // shape.groups, *shape.kernel_size
    return kernel_size(shape)


def kernel_of(shape: LayerShape, weight: Tensor) -> Tensor:
    """The kernel that the layer's weight holds; the weight itself where they are the same."""
    return _turned(shape, weight).reshape(kernel_size(shape))


def weight_of(shape: LayerShape, kernel: Tensor) -> Tensor:
    """The weight that holds a kernel."""
    return _turned(shape, kernel).reshape(weight_size(shape))


def _turned(shape: LayerShape, weight: Tensor) -> Tensor:
    """The channels of each group exchanged, the places in reverse: twice, all is as it was."""
    if not isinstance(shape, TransposedShape):
        return weight
    groups = weight.reshape(shape.groups, len(weight) // shape.groups, *weight.shape[1:])
    return groups.transpose(1, 2).flip(*range(3, groups.ndim))
