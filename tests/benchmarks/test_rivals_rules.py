"""The rules of the rivals that choose ranks, on synthetic tables."""

import math
from itertools import pairwise

import pytest

from benchmarks.rivals.contest import run
from benchmarks.rivals.energy import EnergySearch, energy_points
from benchmarks.rivals.greedy import RATIOS, GreedySearch
from benchmarks.rivals.plain_genetic import PlainGeneticSearch, penalised
from search.strategy import FAILED, Candidate
from tests.search.tables import Additive, Entangled, all_points, layer, row, synthetic, table, timed

SMALL = table(
    layer("a", 1.0, 1000, row(0.1, 0.8, 700), row(0.2, 0.6, 500), row(0.4, 0.3, 200)),
    layer("b", 1.0, 10_000, row(0.1, 0.8, 5000), row(0.4, 0.3, 1000)),
)
ENERGIES = [[1.0, 0.99, 0.9, 0.5], [1.0, 0.8, 0.0]]
DEEP = synthetic(layers=6, choices=7)


def greedy(made, _seed):
    return GreedySearch(made)


def energy(made, _seed):
    """With the choices' losses for energies."""
    return EnergySearch(made, [[1 - r.loss for r in each.choices] for each in made.layers])


def optuna_search(name):
    def make(made, seed):
        package = pytest.importorskip("benchmarks.rivals.optuna_search", exc_type=ImportError)
        return package.OptunaSearch(made, seed, getattr(package, name))

    return make


RULES = {
    "energy": energy,
    "greedy": greedy,
    "plain": PlainGeneticSearch,
    "tpe": optuna_search("tpe"),
    "nsga2": optuna_search("nsga2"),
}
RANDOM = ["plain", "tpe", "nsga2"]


def asked(rule, made, seed=0, most=60, truth=Additive):
    evaluate = truth(made, allowed=0.05 * made.loss((1,) * len(made.layers)) * 2).costs
    ended = run(RULES[rule](made, seed), lambda point: (evaluate(point), 1.0), most)
    return [candidate.point for candidate in ended.candidates]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("made", [SMALL, DEEP], ids=["small", "deep"])
def test_points_lie_in_the_table_and_come_once_and_dense_never(rule, made):
    points = asked(rule, made)
    assert points
    assert len(set(points)) == len(points)
    assert made.dense_point not in points
    assert all(
        type(i) is int and 0 <= i < n for p in points for i, n in zip(p, made.sizes, strict=True)
    )


@pytest.mark.parametrize("rule", RULES)
def test_the_same_seed_asks_the_same_and_a_failure_ends_nothing(rule):
    assert asked(rule, DEEP, truth=Entangled) == asked(rule, DEEP, truth=Entangled)
    nan = FAILED
    ended = run(RULES[rule](DEEP, 0), lambda _: (nan, 1.0), 30)
    assert ended.finalists == []


@pytest.mark.parametrize("rule", RANDOM)
def test_another_seed_asks_something_else(rule):
    assert asked(rule, DEEP, seed=1, most=10) != asked(rule, DEEP, seed=2, most=10)


@pytest.mark.parametrize("rule", RANDOM)
def test_a_small_table_is_searched_to_its_optimum(rule):
    truth = Additive(SMALL, allowed=0.04)
    ended = run(RULES[rule](SMALL, 3), lambda point: (truth.costs(point), 1.0), 50)
    wanted = min((truth.costs(p) for p in all_points(SMALL) if truth.costs(p).is_feasible),
                 key=lambda costs: costs.time_share)  # fmt: skip
    assert ended.finalists[0].costs == wanted


def test_each_layer_keeps_as_much_energy_in_the_fewest_parameters():
    assert energy_points(SMALL, ENERGIES) == [(3, 1), (2, 1), (2, 0), (1, 0)]


def test_dense_is_where_nothing_else_keeps_enough():
    assert energy_points(SMALL, [[1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]) == []


def test_the_energy_search_finds_the_least_threshold_that_keeps_the_budget():
    truth = Additive(SMALL, allowed=0.1 * SMALL.loss((2, 0)))
    ended = run(EnergySearch(SMALL, ENERGIES), lambda point: (truth.costs(point), 1.0), 9)
    assert ended.finalists[0].point == (2, 0)


def test_greedy_scores_single_choices_first_at_most_nine_of_a_layer():
    made = synthetic(layers=3, choices=14)
    singles = GreedySearch(made).ask()
    for i, size in enumerate(made.sizes):
        of = [point for point in singles if point[i]]
        assert len(of) == min(RATIOS, size - 1)
        assert size - 1 in {point[i] for point in of}
        assert all(sum(map(bool, point)) == 1 for point in of)


def test_greedy_takes_the_cheapest_choice_of_each_layer_within_one_score():
    strategy = GreedySearch(SMALL)
    losses = {(1, 0): 0.0, (2, 0): 0.02, (3, 0): 0.3, (0, 1): 0.01, (0, 2): 0.02}

    def candidate(point, loss):
        return Candidate(point, timed(loss, loss - 0.05, 0.5, 0.5))

    strategy.tell([candidate(point, losses[point]) for point in strategy.ask()])
    # scores 0.3, 0.02, 0.01 and 0 stand for these plans; (1, 0) was asked alone
    assert strategy.ask() == [(1, 1)]
    strategy.tell([candidate((1, 1), 0.03)])
    assert strategy.ask() == [(2, 2)]
    strategy.tell([candidate((2, 2), 0.04)])
    assert strategy.ask() == [(3, 2)]
    strategy.tell([candidate((3, 2), 0.9)])
    assert strategy.ask() == []


def test_a_candidate_beyond_the_budget_is_worse_than_dense():
    within, beyond, worse = (timed(0.0, v, t, 0.5) for v, t in ((0.0, 0.9), (0.1, 0.1), (0.2, 0.1)))
    assert penalised(within) == 0.9
    assert 1 < penalised(beyond) < penalised(worse) < math.inf
    assert penalised(FAILED) == math.inf


def test_the_plain_genetic_search_gets_better_by_selection():
    truth = Entangled(DEEP, allowed=0.02, seed=1)
    strategy, means = PlainGeneticSearch(DEEP, seed=0), []
    for _ in range(8):
        candidates = truth(strategy.ask())
        means.append(sum(penalised(c.costs) for c in candidates) / len(candidates))
        strategy.tell(candidates)
    assert means[-1] < means[0]
    assert all(one != other for one, other in pairwise(means))
