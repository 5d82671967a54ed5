import pytest

from search.config import EstimationConfig, GeneticConfig
from search.estimation import EstimationSearch
from search.genetic import GeneticSearch
from search.joint import JointTable
from search.strategies import make_strategy
from search.strategy import best, search
from tests.search.joints import Biased, narrow, whole
from tests.search.tables import Additive, Entangled, synthetic

CONFIG = GeneticConfig(population=6, generations=3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_estimation_comes_first_and_what_follows_it_is_never_behind_it(seed):
    made = synthetic(layers=20, choices=12, seed=seed)
    truth = Entangled(made, allowed=0.1 * made.loss((3,) * 20), seed=seed)
    estimated = list(search(EstimationSearch(made, EstimationConfig()), truth))
    found = list(search(make_strategy(GeneticConfig(), made), truth))
    assert found[: len(estimated)] == estimated
    assert len(found) == len(estimated) + 12 * 6
    first, last = best(estimated), best(found)
    assert first is not None
    assert last is not None
    assert last.costs.time_share <= first.costs.time_share


def test_where_layers_make_one_another_worse_generations_get_further_than_the_estimation():
    gains = []
    for seed in range(6):
        made = synthetic(layers=6, choices=6, seed=seed)
        truth = Entangled(made, allowed=0.1 * made.loss((3,) * 6), seed=seed)
        strategies = (
            EstimationSearch(made, EstimationConfig()),
            make_strategy(GeneticConfig(), made),
        )
        first, last = (best(list(search(each, truth))) for each in strategies)
        gains.append(1 - last.costs.time_share / first.costs.time_share)
    assert sum(gain > 0.001 for gain in gains) >= 4
    assert sum(gains) / len(gains) > 0.01


def test_what_the_estimation_found_is_known_to_the_first_generation():
    made = synthetic(layers=3, choices=4)
    truth = Additive(made, allowed=0.02)
    strategy = make_strategy(CONFIG, made)
    known = []
    while len(points := strategy.ask()) == 1:
        known += truth(points)
        strategy.tell(known[-1:])
    assert points == GeneticSearch(made, CONFIG, known).ask()
    assert len(points) == 6
    assert not {candidate.point for candidate in known} & set(points)


@pytest.mark.parametrize(("allowed", "width"), [(0.3, 1), (0.0, 0)])
def test_ranks_evolve_at_the_width_of_the_best_that_the_estimation_found(allowed, width):
    """Where it found none, at the network's own."""
    joint = JointTable((whole(), narrow()))
    strategy = make_strategy(CONFIG, joint)
    told = Biased(joint, allowed)
    count = len(list(search(make_strategy(EstimationConfig(), joint), told)))
    found = [candidate.point for candidate in search(strategy, told)]
    assert len(set(found)) == len(found) > count
    assert {point[0] for point in found[count:]} == {width}
    assert all(len(point) == len(joint.dense_point) - width for point in found[count:])


@pytest.mark.parametrize("allowed", [0.0, 0.015, 0.06, 0.1, 0.4])
def test_whoever_orders_widths_gets_no_less_than_the_ranks_alone(allowed):
    """Their candidates come first, and none of them is asked for again."""
    joint = JointTable((whole(), narrow()))
    told = Biased(joint, allowed, factor=1.5)  # the narrow network is slower than predicted
    alone = list(search(make_strategy(EstimationConfig(), JointTable((whole(),))), told))
    found = list(search(make_strategy(EstimationConfig(), joint), told))
    assert found[: len(alone)] == alone
    assert len({candidate.point for candidate in found}) == len(found)
    if best(alone) is not None:
        assert best(found).costs.cost <= best(alone).costs.cost


def test_widths_have_evaluations_of_their_own():
    joint = JointTable((whole(), narrow()))
    config = EstimationConfig(max_evaluations=2)
    found = list(search(make_strategy(config, joint), Biased(joint, allowed=0.1)))
    assert [candidate.point[0] for candidate in found[:2]] == [0, 0]
    assert len(found) == 4
    assert best(found).point[0] == 1
