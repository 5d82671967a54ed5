"""Matrices that tensor networks stand for, built the long way; modes and ranks of hypothesis."""

import torch
from hypothesis import strategies as st

from compress.recurrent.contraction import best_order
from compress.recurrent.formats import FORMATS
from compress.recurrent.modes import Modes
from compress.recurrent.projection import Projection


@st.composite
def modes(draw, most_order=3, most_size=4, least_order=1):
    order = draw(st.integers(least_order, most_order))
    sides = st.tuples(*[st.integers(1, most_size)] * order)
    return Modes(draw(sides), draw(sides))


@st.composite
def networks(draw, names=tuple(FORMATS), most_rank=3):
    """(format, modes, ranks, network) of any format at ranks it allows."""
    name = draw(st.sampled_from(names))
    of = draw(modes(least_order=2 if name == "hierarchical_tucker" else 1))
    limits = FORMATS[name].limits(of)
    ranks = tuple(draw(st.integers(1, min(limit, most_rank))) for limit in limits)
    return name, of, ranks, FORMATS[name].network(of, ranks)


def projection_of(network, order=None):
    """In float64, of the best order or another."""
    projection = Projection(
        network.sizes,
        network.inputs,
        network.outputs,
        network.factors,
        best_order(network) if order is None else order,
    )
    return projection.double()


def matrix_of(projection):
    """(M, N), one einsum over all factors at once."""
    number = {label: i for i, label in enumerate(projection.sizes)}
    operands = []
    for name, labels in projection.factors.items():
        operands += [projection.get_parameter(name), [number[label] for label in labels]]
    sides = [number[label] for label in projection.outputs + projection.inputs]
    matrix = torch.einsum(*operands, sides)
    return matrix.reshape(projection.out_features, projection.in_features)
