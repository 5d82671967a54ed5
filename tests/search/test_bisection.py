import math

from search.bisection import crossing


def test_the_crossing_is_found_to_the_last_bit():
    found = crossing(lambda x: x * x - 2, 0, 2)
    assert math.isclose(found, math.sqrt(2), rel_tol=4e-16)
    assert found * found >= 2 > math.nextafter(found, 0) ** 2


def test_without_a_crossing_the_upper_end_comes_back():
    assert crossing(lambda x: -1, 0, 3) == 3


def test_an_empty_interval_is_its_own_answer():
    assert crossing(lambda x: x, 1, 1) == 1
