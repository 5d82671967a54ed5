"""Neighbouring linear layers multiplied out, where one layer is less work than two."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from torch import nn

from compress.equivalent import dense_weight
from compress.flow import Flow
from compress.kernels import kernel_size
from compress.layers import shape_of
from compress.methods.groups import groups_of
from compress.pieces import assembled, is_linear, pieces_of, plain_layer
from compress.shape import ConvShape, LayerShape, LinearShape, Stage, TransposedShape


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stage of the module `owner`."""

    owner: str
    stage: str
    layer: nn.Module


def merged(model: nn.Module, flow: Flow) -> dict[str, nn.Module]:
    """What to put where, so that no two layers are left that one could do for less: name -> module.

    Two layers are multiplied out where nothing lies between, the later one is pointwise (1x1, or
    Linear after Linear), and the product has fewer parameters than the two weights; then it has
    fewer MACs too, since it works at the resolution of the later one. It takes the place of the
    earlier. Of stages in a row, the two that save most come first. What is found shares no storage
    with `model`.
    """
    found: dict[str, nn.Module] = {}
    for run in _runs(model, flow):
        kept = list(run)
        while (best := _best(kept)) is not None:
            earlier, later = kept[best], kept.pop(best + 1)
            kept[best] = replace(earlier, layer=_product(earlier.layer, later.layer))
        for owner in {piece.owner for piece in set(run) - set(kept)}:
            pieces = {piece.stage: piece.layer for piece in kept if piece.owner == owner}
            found[owner] = assembled(model.get_submodule(owner), pieces)
    return found


def _runs(model: nn.Module, flow: Flow) -> Iterator[list[_Piece]]:
    """The stages between which nothing else lies, in the order of the data."""
    writers = {reader: name for name, reader in flow.readers.items()}
    members = {name: pieces_of(model.get_submodule(name)) for name in [*flow.readers, *writers]}
    for first, pieces in members.items():
        if pieces is None or members.get(writers.get(first, "")) is not None:
            continue
        run: list[_Piece] = []
        name: str | None = first
        while name is not None and (pieces := members[name]) is not None:
            run += [_Piece(name, stage, layer) for stage, layer in pieces.items()]
            name = flow.readers.get(name)
        yield run


def _best(run: list[_Piece]) -> int | None:
    """Where the pair begins that saves most; None where no pair saves anything."""
    savings = [_saving(earlier.layer, later.layer) for earlier, later in pairwise(run)]
    most = max(savings, default=0)
    return savings.index(most) if most > 0 else None


def _saving(earlier: nn.Module, later: nn.Module) -> int:
    """Parameters, or multiply-adds for each output position if they are fewer, that go.

    0 or less where the two stay two. A pad of zeros between them would not get the bias that the
    product gives it, so the later has none.
    """
    if not is_linear(earlier) or not is_linear(later):
        return 0
    first, second = shape_of(earlier), shape_of(later)
    if first.type != second.type or groups_of(first) > 1 or not _is_pointwise(second):
        return 0
    product = _product_shape(first, second)
    weights = [math.prod(kernel_size(shape)) for shape in (first, second, product)]
    parameters = [shape.parameters for shape in (first, second, product)]
    return min(one + other - both for one, other, both in (weights, parameters))


def _is_pointwise(shape: LayerShape) -> bool:
    """Whether the layer multiplies the channels of each place by one matrix, and does no more."""
    if isinstance(shape, LinearShape):
        return True
    alone = {*shape.kernel_size, *shape.stride, shape.groups} == {1}
    padded = isinstance(shape.padding, tuple) and any(shape.padding)
    return alone and not padded and not isinstance(shape, TransposedShape)


def _product_shape(first: LayerShape, second: LayerShape) -> LayerShape:
    bias = first.bias or second.bias
    if isinstance(first, ConvShape) and isinstance(second, ConvShape):
        return replace(first, out_channels=second.out_channels, bias=bias)
    assert isinstance(first, LinearShape)
    assert isinstance(second, LinearShape)
    return replace(first, out_features=second.out_features, bias=bias)


def _product(earlier: nn.Module, later: nn.Module) -> nn.Module:
    """One layer for two: W2 (W1 x + b1) + b2."""
    first, second = shape_of(earlier), shape_of(later)
    weights = {"first": earlier.get_parameter("weight"), "second": later.get_parameter("weight")}
    kernel = dense_weight(first, (Stage("first", first), Stage("second", second)), weights)
    bias = None
    if first.bias:
        bias = weights["second"].flatten(1).double() @ earlier.get_parameter("bias").double()
    if second.bias:
        shift = later.get_parameter("bias").double()
        bias = shift if bias is None else bias + shift
    return plain_layer(_product_shape(first, second), kernel, bias, earlier)
