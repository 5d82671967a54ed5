from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.config import Weights
from search.knapsack import cheapest, front
from tests.search.tables import all_points, layer, row, synthetic, table


@st.composite
def small_tables(draw, numbers=st.floats(0, 1, allow_subnormal=False)):  # noqa: B008  a strategy
    """Of each layer the fewest MACs are anywhere, whichever choice is the fastest."""
    layers = []
    for i in range(draw(st.integers(1, 4))):
        rows = draw(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4))
        macs = draw(st.permutations(range(10, 10 * len(rows) + 10, 10)))
        made = [
            row(loss, time, 10 * (len(rows) - k), macs=macs[k])
            for k, (loss, time) in enumerate(rows)
        ]
        layers.append(layer(f"conv{i}", 1.0, 100, *made))
    return table(*layers, rest_ms=8.0 - len(layers))  # shares of 8 ms: as exact as the times


WEIGHTS = [Weights(latency=1.0), Weights(macs=1.0), Weights(latency=1.0, parameters=3.0)]


@settings(max_examples=100, deadline=None)
@given(made=small_tables(), share=st.floats(0, 1), weights=st.sampled_from(WEIGHTS))
def test_no_plan_within_the_loss_is_cheaper(made, share, weights):
    """Oracle: all plans, the sums of the numbers that the weights name."""
    made = replace(made, weights=weights)
    points = all_points(made)
    loss = share * max(map(made.loss, points))
    found = cheapest(made, front(made), loss)
    within = [point for point in points if made.loss(point) <= loss]
    assert made.loss(found) <= loss

    def cost(point):
        times = weights.latency * made.latency_ms(point) / made.dense_latency_ms
        sizes = weights.macs * made.mac_share(point) + weights.parameters * made.parameter_share(
            point
        )
        return times + sizes

    # Sums of the same numbers in another order.
    assert cost(found) == pytest.approx(min(map(cost, within)), rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(made=small_tables(st.integers(0, 8).map(lambda eighths: eighths / 8)))
def test_no_plan_of_the_front_beats_another_and_the_fastest_is_the_last(made):
    """Eighths add up without round-off, and often to the same."""
    points = front(made)
    for one, other in pairwise(points):
        assert made.loss(one) < made.loss(other)
        assert made.latency_ms(one) > made.latency_ms(other)
    assert made.latency_ms(points[-1]) == min(map(made.latency_ms, all_points(made)))


def test_the_front_starts_with_dense_where_every_choice_loses_something():
    made = synthetic(layers=6, choices=8)
    assert front(made)[0] == made.dense_point


def test_a_thinned_front_keeps_every_loss_and_is_slower_by_no_more_than_it_says():
    made = synthetic(layers=8, choices=10)
    whole, thinned = front(made, resolution=10**6), front(made, resolution=64)
    assert len(thinned) < len(whole)
    allowance = 8 / 63 * (made.dense_latency_ms - made.latency_ms(whole[-1]))
    for point in whole:
        found = cheapest(made, thinned, made.loss(point))
        assert made.loss(found) <= made.loss(point) or found == thinned[0]
        assert made.latency_ms(found) <= made.latency_ms(point) + allowance
    assert thinned[-1] == whole[-1]


def test_a_network_of_fifty_layers_has_a_front_of_bounded_length():
    made = synthetic(layers=50, choices=30)
    points = front(made)
    assert points[0] == made.dense_point
    assert 500 < len(points) <= 2048


def test_nothing_to_choose_is_a_front_of_one_empty_point():
    assert front(table()) == [()]


def test_no_loss_at_all_is_allowed_to_dense_alone():
    made = synthetic(layers=3, choices=4)
    assert cheapest(made, front(made), -1.0) == made.dense_point
