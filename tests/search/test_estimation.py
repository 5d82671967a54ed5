import math
from dataclasses import dataclass

import pytest

from search.config import EstimationConfig
from search.estimation import EstimationSearch
from search.knapsack import cheapest, front
from search.strategy import Candidate, best, search
from tests.search.tables import Additive, Entangled, opposed, synthetic, timed


def found_by(truth: Additive, evaluations: int = 10) -> list[Candidate]:
    config = EstimationConfig(max_evaluations=evaluations)
    return list(search(EstimationSearch(truth.table, config), truth))


@dataclass(frozen=True)
class Knee(Additive):
    """Nothing is lost up to a predicted loss, then all at once: no power law."""

    knee: float = 0.5

    def loss(self, point):
        beyond = max(0.0, self.table.loss(point) - self.knee)
        return beyond / (beyond + self.slope)


@pytest.mark.parametrize("exponent", [0.7, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("share", [0.003, 0.02, 0.1, 0.5, 1.1])
def test_ten_evaluations_come_within_three_percent_of_the_optimum(exponent, share):
    made = synthetic(layers=20, choices=16)
    points = front(made)
    loss = share * made.loss(points[-1])
    truth = Additive(made, allowed=0.1 * loss**exponent * (1 + 1e-9), exponent=exponent)
    told = found_by(truth)
    found = best(told)
    assert len(told) <= 10
    assert found is not None
    assert found.costs.time_share <= 1.03 * truth.time_share(cheapest(made, points, loss))


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_loss_that_starts_at_a_knee_is_found_as_well(share, seed):
    made = synthetic(layers=20, choices=16, seed=seed)
    points = front(made)
    knee = share * made.loss(points[-1])
    truth = Knee(made, allowed=0.005, knee=knee)
    optimum = cheapest(made, points, knee + 0.005 * 0.1 / 0.995)
    found = best(found_by(truth))
    assert found is not None
    assert found.costs.time_share <= 1.03 * truth.time_share(optimum)


def test_a_swap_changes_one_layer_for_a_faster_choice_short_of_what_was_refused():
    made = synthetic(layers=8, choices=5, seed=4)
    on_front = set(front(made))
    swaps = 0
    for seed in range(6):
        truth = Entangled(made, allowed=0.1 * made.loss((2,) * 8), seed=seed)
        told = found_by(truth, evaluations=14)
        for i, candidate in enumerate(told):
            if candidate.point not in on_front:
                base = best(told[:i])
                assert base is not None
                pairs = zip(base.point, candidate.point, strict=True)
                assert sum(one != other for one, other in pairs) == 1
                assert made.latency_ms(candidate.point) < made.latency_ms(base.point)
                refused = [made.loss(c.point) for c in told[:i] if not c.costs.is_feasible]
                beyond = [loss for loss in refused if loss > made.loss(base.point)]
                assert made.loss(candidate.point) < min(beyond, default=math.inf)
                swaps += 1
    assert swaps > 0


def test_a_swap_is_cheaper_in_what_is_minimised():
    """Whatever has fewer MACs is slower here: a swap for time would go the other way."""
    made = opposed(synthetic(layers=8, choices=8))
    on_front = set(front(made))
    swaps = 0
    for seed in range(6):
        truth = Entangled(made, allowed=0.1 * made.loss((3,) * 8), seed=seed)
        told = found_by(truth, evaluations=14)
        for i, candidate in enumerate(told):
            if candidate.point not in on_front:
                base = best(told[:i])
                assert base is not None
                assert made.cost(candidate.point) < made.cost(base.point)
                swaps += 1
    assert swaps > 0


def test_a_swap_can_gain_where_the_layers_matter_unequally():
    made = synthetic(layers=8, choices=5, seed=4)
    on_front = set(front(made))
    gained = 0
    for seed in range(6):
        truth = Entangled(made, allowed=0.1 * made.loss((2,) * 8), seed=seed)
        found = best(found_by(truth, evaluations=14))
        gained += found is not None and found.point not in on_front
    assert gained > 0


@pytest.mark.parametrize("turned", [lambda made: made, opposed], ids=["time", "MACs"])
def test_the_first_question_halves_the_cost_that_is_open(turned):
    made = turned(synthetic(layers=20, choices=16))
    strategy = EstimationSearch(made, EstimationConfig())
    (point,) = strategy.ask()
    half = (1 + made.cost(front(made)[-1])) / 2
    assert made.cost(point) == pytest.approx(half, rel=0.02)


def test_a_proportional_loss_is_foretold_after_one_evaluation():
    made = synthetic(layers=20, choices=16)
    loss = 0.2 * made.loss(front(made)[-1])
    truth = Additive(made, allowed=0.1 * loss * (1 + 1e-9))
    strategy = EstimationSearch(made, EstimationConfig())
    strategy.tell(truth(strategy.ask()))
    assert strategy.ask() == [cheapest(made, front(made), loss)]


def test_a_budget_that_all_keep_ends_with_the_fastest_of_all():
    made = synthetic(layers=6, choices=6)
    found = best(found_by(Additive(made, allowed=10.0)))
    assert found is not None
    assert made.latency_ms(found.point) == pytest.approx(made.latency_ms(front(made)[-1]), rel=0.01)


def test_a_network_that_gets_slower_is_left_alone():
    made = synthetic(layers=6, choices=6)

    @dataclass(frozen=True)
    class Slower(Additive):
        def time_share(self, point):
            return 2 - super().time_share(point)

    told = found_by(Slower(made, allowed=0.1 * made.loss((2,) * 6)))
    assert [candidate.costs.is_feasible for candidate in told] == [False] * (len(told) - 1) + [True]


@pytest.mark.parametrize("exponent", [0.7, 1.0, 2.0])
def test_two_that_are_safer_than_the_best_are_there_to_fall_back_on(exponent):
    made = synthetic(layers=20, choices=16)
    limit = 0.05 * made.loss(front(made)[-1])
    told = found_by(Additive(made, allowed=0.1 * limit**exponent * (1 + 1e-9), exponent=exponent))
    kept = [made.loss(candidate.point) for candidate in told if candidate.costs.is_feasible]
    for share in (0.5, 0.25):
        assert any(share / 2 < loss / limit <= share for loss in kept)


def test_a_best_one_far_within_the_budget_needs_none_to_fall_back_on():
    """Half of what its loss lets hope for is bolder than it is, and than what was refused."""
    made = synthetic(layers=20, choices=16)
    points = front(made)
    best_one, refused = points[len(points) // 3 :][:2]
    strategy = EstimationSearch(made, EstimationConfig())
    strategy.tell(
        [
            Candidate(best_one, timed(1e-4, 1e-4 - 0.1, made.cost(best_one), 0.5)),
            Candidate(refused, timed(300.0, 299.9, made.cost(refused), 0.5)),
        ]
    )
    assert all(made.loss(point) < made.loss(refused) for point in strategy.ask())
