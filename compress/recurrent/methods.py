"""The formats as methods of one weight: which ranks are worth trying, and what each costs."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from compress.catalog import RECURRENT_METHODS
from compress.errors import UnsupportedLayerError
from compress.methods.grid import thinned
from compress.methods.method import NEVER_PAYS, Ranks
from compress.methods.svd import SVD
from compress.plan import Choice
from compress.recurrent import contraction
from compress.recurrent.contraction import best_order
from compress.recurrent.formats import FORMATS, network_of
from compress.recurrent.modes import Modes
from compress.recurrent.network import TensorNetwork
from compress.recurrent.projection import Projection
from compress.shape import WeightShape

KCP_RANKS = (4, 8)
NO_RANKS: Final = "no rank has fewer parameters and MACs than the dense weight"
NOT_OF_WEIGHTS: Final = "it has no layout of a recurrent layer's weights"
ONLY_OF_WEIGHTS: Final = "only weights of recurrent layers have this layout"


def refusal(name: str, shape: WeightShape) -> str | None:
    """Why a method cannot be used for a weight of this shape, or never pays; None if it may."""
    if name not in RECURRENT_METHODS:
        return NOT_OF_WEIGHTS
    if next(iter(grid(name, shape)), None) is not None:
        return None
    return NEVER_PAYS if name == "svd" else NO_RANKS


def grid(name: str, shape: WeightShape, modes: Modes | None = None) -> list[Choice]:
    """Choices worth trying, ascending: few, and each cheaper than the dense weight.

    The modes are in the choices, but for `svd`, which has none.

    Raises:
        RankError: the modes are not those of the weight.
    """
    if name == "svd":
        return [Choice(name, ranks) for ranks in SVD.grid(shape.plain)]
    modes = modes or default_modes(shape)
    modes.check(shape.out_features, shape.in_features)
    lattice = LATTICES.get(name, _uniform)(name, modes)
    dense = shape.in_features * shape.out_features
    cheaper = [ranks for ranks in lattice if max(_costs(name, modes, ranks)) < dense]
    return [Choice(name, ranks, modes) for ranks in thinned(cheaper)]


def default_modes(shape: WeightShape) -> Modes:
    """Two of each side, as near to each other as they can be."""
    return Modes.of(shape.in_features, shape.out_features)


def blank_projection(shape: WeightShape, choice: Choice) -> Projection:
    """What stands in for a weight of this shape, with random values.

    Raises:
        UnsupportedLayerError: as `network`.
        RankError: likewise.
    """
    found = network(shape, choice)
    return Projection(found.sizes, found.inputs, found.outputs, found.factors, best_order(found))


def network(shape: WeightShape, choice: Choice) -> TensorNetwork:
    """The tensor network of a choice for a weight of this shape.

    Raises:
        UnsupportedLayerError: the method is none of a recurrent layer's weights.
        RankError: the modes or the ranks are not those of the weight.
    """
    if choice.method not in RECURRENT_METHODS:
        raise UnsupportedLayerError(f"{choice.method} of a {shape.type}: {NOT_OF_WEIGHTS}")
    modes = modes_of(shape, choice)
    modes.check(shape.out_features, shape.in_features)
    return network_of(choice.method, modes, choice.ranks)


def modes_of(shape: WeightShape, choice: Choice) -> Modes:
    """Those of the choice, or the default: of `svd` one of each side."""
    if choice.modes is not None:
        return choice.modes
    if choice.method == "svd":
        return Modes((shape.in_features,), (shape.out_features,))
    return default_modes(shape)


def macs(projection: Projection, vectors: int) -> int:
    """Of so many vectors, the factors arranged once for all."""
    return projection.macs * vectors + projection.preparing_macs


def _costs(name: str, modes: Modes, ranks: Ranks) -> tuple[int, int]:
    """Parameters, and MACs of a vector."""
    found = network_of(name, modes, ranks)
    return found.parameters, contraction.macs(found, best_order(found))


def _doubled(limit: int) -> Iterator[int]:
    """1, 2, 4 ... to the limit."""
    return (1 << i for i in range(limit.bit_length()))


def _uniform(name: str, modes: Modes) -> Iterable[Ranks]:
    """Every rank the same, as far as their limits allow."""
    limits = FORMATS[name].limits(modes)
    ranks = (FORMATS[name].uniform(modes, rank) for rank in _doubled(max(limits)))
    return dict.fromkeys(ranks)


def _kcp(name: str, modes: Modes) -> Iterable[Ranks]:
    terms, most = FORMATS[name].limits(modes)
    ranks = {min(rank, most) for rank in KCP_RANKS}
    return sorted((k, rank) for k in _doubled(terms) for rank in ranks)


LATTICES: Final[Mapping[str, Callable[[str, Modes], Iterable[Ranks]]]] = {"kcp": _kcp}
