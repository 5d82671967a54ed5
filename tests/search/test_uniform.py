from itertools import pairwise

from search.config import UniformConfig
from search.strategy import best, search
from search.uniform import UniformSearch, uniform_point, uniform_points
from tests.search.tables import Additive, layer, row, synthetic, table

TABLE = table(
    layer("a", 1.0, 1000, row(0.1, 0.8, 700), row(0.2, 0.6, 500), row(0.4, 0.3, 200)),
    layer("b", 1.0, 10_000, row(0.1, 0.8, 5000), row(0.4, 0.3, 1000)),
)


def test_each_layer_takes_the_most_parameters_within_the_share():
    assert uniform_point(TABLE, 0.7) == (1, 1)
    assert uniform_point(TABLE, 0.69) == (2, 1)
    assert uniform_point(TABLE, 0.5) == (2, 1)
    assert uniform_point(TABLE, 0.49) == (3, 2)


def test_where_the_share_is_too_small_the_least_choice_stands():
    assert uniform_point(TABLE, 0.15) == (3, 2)
    assert uniform_point(TABLE, 0.0) == (3, 2)


def test_of_equal_parameters_the_choice_of_less_loss_is_taken():
    twins = table(layer("a", 1.0, 1000, row(0.3, 0.5, 400), row(0.1, 0.6, 400)))
    assert uniform_point(twins, 0.5) == (2,)
    assert uniform_point(twins, 0.1) == (2,)


def test_the_points_of_all_shares_rise_in_parameters_to_the_loosest():
    made = synthetic(layers=6, choices=7)
    points = uniform_points(made)
    for one, other in pairwise(points):
        assert made.parameters(one) < made.parameters(other)
    assert points[0] == tuple(size - 1 for size in made.sizes)
    assert points[-1] == (1,) * 6


def test_the_least_share_within_the_budget_is_found():
    made = synthetic(layers=6, choices=7)
    points = uniform_points(made)
    for wanted in (points[0], points[len(points) // 3], points[-1]):
        truth = Additive(made, allowed=0.1 * made.loss(wanted) * (1 + 1e-9))
        found = best(list(search(UniformSearch(made, UniformConfig()), truth)))
        assert found is not None
        assert found.point == min(
            (p for p in points if truth.costs(p).is_feasible), key=made.parameters
        )


def test_the_bisection_ends_with_its_evaluations():
    made = synthetic(layers=6, choices=7)
    truth = Additive(made, allowed=0.1 * made.loss((3,) * 6))
    assert len(list(search(UniformSearch(made, UniformConfig(max_evaluations=2)), truth))) == 2
