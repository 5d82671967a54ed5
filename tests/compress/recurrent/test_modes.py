import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.errors import RankError
from compress.recurrent.modes import Modes, nearest_factors


@given(number=st.integers(1, 400), count=st.integers(1, 3))
def test_no_other_factors_have_a_smaller_sum(number, count):
    divisors = [n for n in range(1, number + 1) if number % n == 0]
    others = [f for f in product(divisors, repeat=count) if math.prod(f) == number]
    found = nearest_factors(number, count)
    assert found in others
    assert list(found) == sorted(found)
    assert sum(found) == min(map(sum, others))


def test_the_longest_mode_is_the_last():
    assert Modes.of(57_600, 1024, 4) == Modes((15, 15, 16, 16), (4, 4, 8, 8))
    assert Modes.of(512, 2048) == Modes((16, 32), (32, 64))


def test_a_prime_has_one_mode_and_ones():
    assert Modes.of(13, 7) == Modes((1, 13), (1, 7))


def test_the_modes_of_a_default_multiply_to_the_features():
    modes = Modes.of(2000, 360, 3)
    assert (modes.order, modes.in_features, modes.out_features) == (3, 2000, 360)


@pytest.mark.parametrize("sides", [((2, 3), (4,)), ((), ()), ((0,), (1,)), ((2.0,), (1,))])
def test_modes_that_are_no_sizes_are_refused(sides):
    with pytest.raises(RankError, match="came"):
        Modes(*sides)


@pytest.mark.parametrize("numbers", [(0, 4, 2), (4, 0, 2), (4, 4, 0)])
def test_features_and_orders_below_one_are_refused(numbers):
    with pytest.raises(RankError, match="above zero"):
        Modes.of(*numbers)


def test_a_matrix_of_another_size_is_refused():
    with pytest.raises(RankError, match=r"\(12, 6\) came for one of \(6, 12\)"):
        Modes((2, 3), (3, 4)).check(6, 12)
