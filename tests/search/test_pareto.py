import math

from hypothesis import given
from hypothesis import strategies as st

from search.pareto import front, nearest, unbeaten
from search.strategy import FAILED, Candidate
from tests.search.tables import timed

pairs = st.tuples(st.integers(0, 5).map(float), st.integers(0, 5).map(float))


def beats(one, other):
    return one != other and one[0] <= other[0] and one[1] <= other[1]


@given(st.lists(pairs, max_size=12))
def test_the_front_is_what_nothing_beats_each_once(items):
    """Oracle: the definition, by comparing all with all."""
    wanted = {one for one in items if not any(beats(other, one) for other in items)}
    assert front(items, lambda pair: pair) == sorted(wanted)


def test_of_equal_ones_the_first_stays_and_what_failed_is_left_out():
    items = [("a", 1.0, 2.0), ("b", 1.0, 2.0), ("c", math.nan, 0.0), ("d", 0.0, math.nan)]
    assert front(items, lambda item: item[1:]) == items[:1]


def test_the_nearest_of_each_cost_is_taken_once_in_the_order_of_the_costs():
    items = ["a", "bbb", "ccc", "ddddddd"]
    assert nearest(items, len, [6.5, 2.4, 3.1, 0]) == ["ddddddd", "bbb", "a"]


def test_dense_is_on_the_front_though_it_is_no_candidate():
    fast = Candidate((2,), timed(0.3, 0.2, 0.5))
    slow = Candidate((1,), timed(0.1, 0.0, 1.2))
    failed = Candidate((3,), FAILED)
    found = unbeaten([fast, slow, failed], dense_point=(0,), allowed=0.1)
    assert [c.point for c in found] == [(0,), (2,)]
    dense = found[0].costs
    assert (dense.loss, dense.cost, dense.violation, dense.is_feasible) == (0.0, 1.0, -0.1, True)


def test_dense_is_not_on_the_front_where_a_cheaper_one_loses_nothing():
    better = Candidate((1,), timed(-0.01, -0.02, 0.9))
    worse = Candidate((2,), timed(0.02, 0.01, 0.8))
    found = unbeaten([worse, better], dense_point=(0,), allowed=0.01)
    assert [c.point for c in found] == [(1,), (2,)]
