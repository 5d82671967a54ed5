"""The formats as methods of a weight."""

import pytest

from compress.catalog import ALL_METHODS, METHODS, RECURRENT_METHODS
from compress.errors import RankError
from compress.layers import refusal
from compress.recurrent.formats import FORMATS
from compress.recurrent.methods import blank_projection, grid, macs
from compress.recurrent.modes import Modes
from compress.shape import LinearShape, WeightShape

SHAPE = WeightShape(layer="LSTM", in_features=64, out_features=256)
DENSE = 64 * 256


def test_every_format_but_the_dense_one_is_a_method():
    assert set(RECURRENT_METHODS) == set(FORMATS) - {"dense"}


@pytest.mark.parametrize("name", RECURRENT_METHODS)
def test_the_grid_has_few_choices_each_cheaper_than_dense(name):
    found = grid(name, SHAPE)
    assert 0 < len(found) <= 12
    for choice in found:
        projection = blank_projection(SHAPE, choice)
        assert sum(factor.numel() for factor in projection.parameters()) < DENSE
        assert projection.macs < DENSE
        assert (choice.modes is None) == (name == "svd")


@pytest.mark.parametrize("name", ALL_METHODS)
def test_a_method_tells_of_weights_and_of_layers_why_not(name):
    for shape, known in (
        (SHAPE, RECURRENT_METHODS),
        (LinearShape(in_features=64, out_features=256), METHODS),
    ):
        if name not in known:
            assert refusal(name, shape)


def test_modes_of_another_size_are_refused():
    with pytest.raises(RankError, match="for one of"):
        grid("kcp", SHAPE, Modes((8, 9), (16, 16)))


def test_a_small_weight_has_no_form():
    small = WeightShape(layer="GRU", in_features=2, out_features=6)
    assert refusal("svd", small)
    assert refusal("kronecker", small)


def test_macs_arrange_the_factors_once():
    (choice, *_) = grid("kcp", SHAPE, Modes((2, 2, 16), (4, 4, 16)))
    projection = blank_projection(SHAPE, choice)
    assert projection.preparing_macs > 0
    assert macs(projection, 7) == 7 * projection.macs + projection.preparing_macs
