import random
from dataclasses import replace

import pytest
from deap import tools

from search.config import EstimationConfig, GeneticConfig
from search.estimation import EstimationSearch
from search.genetic import (
    ConstrainedCosts,
    GeneticSearch,
    Parent,
    drawing_from,
    loss_limit,
    mutate,
    spread,
)
from search.knapsack import cheapest, front
from search.strategy import FAILED, Candidate, Costs, best, search
from search.uniform import uniform_points
from tests.search.tables import Additive, Entangled, opposed, synthetic, timed

TABLE = synthetic(layers=12, choices=8)


def costs(violation: float, time_share: float, parameter_share: float) -> Costs:
    return timed(0.0, violation, time_share, parameter_share)


def dominates(one: Costs, other: Costs) -> bool:
    return ConstrainedCosts(one).dominates(ConstrainedCosts(other))


def test_the_budget_comes_before_the_time():
    assert dominates(costs(-0.1, 0.9, 0.9), costs(0.1, 0.2, 0.2))
    assert dominates(costs(0.1, 0.9, 0.9), costs(0.2, 0.2, 0.2))
    assert not dominates(costs(0.2, 0.2, 0.2), costs(0.1, 0.9, 0.9))


def test_within_the_budget_a_margin_counts_for_nothing():
    assert dominates(costs(-0.1, 0.4, 0.5), costs(-0.9, 0.5, 0.5))
    assert not dominates(costs(-0.9, 0.5, 0.5), costs(-0.1, 0.5, 0.5))


def test_what_is_minimised_counts_and_no_other_share():
    cheap, fast = costs(-0.1, 0.9, 0.5), costs(-0.1, 0.2, 0.5)
    assert dominates(replace(cheap, cost=0.3), replace(fast, cost=0.4))
    assert not dominates(replace(fast, cost=0.4), replace(cheap, cost=0.3))


def test_neither_of_faster_and_smaller_beats_the_other():
    one, other = costs(-0.1, 0.4, 0.6), costs(-0.1, 0.6, 0.4)
    assert not dominates(one, other)
    assert not dominates(other, one)


def test_the_selection_takes_the_feasible_first_and_then_the_least_violating():
    all_costs = [
        costs(0.3, 0.1, 0.1),
        costs(-0.1, 0.9, 0.9),
        costs(0.1, 0.5, 0.5),
        costs(-0.1, 0.4, 0.7),
        costs(-0.1, 0.9, 0.95),
    ]
    parents = [Parent(Candidate((i,), each)) for i, each in enumerate(all_costs)]
    assert [genes[0] for genes in tools.selNSGA2(parents, k=4)] == [3, 1, 4, 2]


def test_equal_times_with_unequal_violations_are_not_one_candidate():
    """DEAP sorts classes of equal costs, which would hide a violation."""
    parents = [
        Parent(Candidate((0,), costs(0.2, 0.5, 0.5))),
        Parent(Candidate((1,), costs(-0.1, 0.5, 0.5))),
    ]
    assert tools.sortNondominated(parents, k=2) == [[[1]], [[0]]]


def test_the_first_generation_holds_the_front_the_uniform_points_and_random_ones():
    config = GeneticConfig(population=24)
    points = GeneticSearch(TABLE, config).ask()
    on_front, uniform = set(front(TABLE)), set(uniform_points(TABLE))
    assert len(points) == 24
    assert sum(point in on_front for point in points) >= 12
    assert sum(point in uniform for point in points) >= 8
    assert any(point not in on_front | uniform for point in points)
    assert front(TABLE)[-1] in points


@pytest.mark.parametrize("kind", [Additive, Entangled])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_search_never_ends_slower_than_the_estimation_front_it_began_with(kind, seed):
    truth = kind(TABLE, allowed=0.1 * TABLE.loss((3,) * 12))
    strategy = GeneticSearch(TABLE, GeneticConfig(population=8, generations=4, seed=seed))
    on_front = set(front(TABLE))
    seeds = best([c for c in truth(strategy.ask()) if c.point in on_front])
    found = best(list(search(strategy, truth)))
    assert seeds is not None
    assert found is not None
    assert found.costs.time_share < seeds.costs.time_share


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_search_keeps_abreast_of_the_estimation(seed):
    made = synthetic(layers=20, choices=12, seed=seed)
    truth = Entangled(made, allowed=0.1 * made.loss((3,) * 20), seed=seed)
    estimated = best(list(search(EstimationSearch(made, EstimationConfig()), truth)))
    found = best(list(search(GeneticSearch(made, GeneticConfig()), truth)))
    assert estimated is not None
    assert found is not None
    assert found.costs.time_share <= 1.02 * estimated.costs.time_share


def test_each_generation_asks_the_front_where_it_is_expected_to_cross_the_budget():
    truth = Additive(TABLE, allowed=0.1 * TABLE.loss((3,) * 12))
    strategy = GeneticSearch(TABLE, GeneticConfig())
    told = truth(strategy.ask())
    strategy.tell(told)
    assert cheapest(TABLE, front(TABLE), loss_limit(TABLE, told)) in strategy.ask()


def test_children_mix_the_genes_of_parents_that_did_not_fail():
    config = GeneticConfig(population=12, crossover_rate=1.0, mutation_rate=0.0, screening=1)
    strategy = GeneticSearch(TABLE, config)
    told = Additive(TABLE, allowed=0.5)(strategy.ask())
    strategy.tell([*told[:2], *(Candidate(c.point, FAILED) for c in told[2:])])
    children = set(strategy.ask()) - set(front(TABLE))
    genes = list(zip(told[0].point, told[1].point, strict=True))
    assert len(children) >= 3
    for child in children:
        assert all(gene in pair for gene, pair in zip(child, genes, strict=True))


def test_screening_finds_faster_candidates_with_the_same_evaluations():
    """Averaged over seeds: a single search may be lucky."""
    truth = Entangled(TABLE, allowed=0.1 * TABLE.loss((3,) * 12))

    def mean_time(screening: int) -> float:
        configs = [
            GeneticConfig(population=8, generations=5, screening=screening, seed=seed)
            for seed in range(6)
        ]
        shares = []
        for config in configs:
            found = best(list(search(GeneticSearch(TABLE, config), truth)))
            assert found is not None
            shares.append(found.costs.time_share)
        return sum(shares) / len(shares)

    assert mean_time(screening=40) < mean_time(screening=1)


def test_screening_goes_by_what_is_minimised():
    """Whatever has fewer MACs is slower here: children screened by their time would have more."""
    made = opposed(TABLE)
    truth = Additive(made, allowed=100.0)  # no loss is a penalty

    def mean_cost(screening: int) -> float:
        strategy = GeneticSearch(made, GeneticConfig(screening=screening))
        strategy.tell(truth(strategy.ask()))
        children = set(strategy.ask()) - set(front(made))
        return sum(map(made.cost, children)) / len(children)

    assert mean_cost(screening=40) < mean_cost(screening=1)


def test_another_seed_is_another_search():
    truth = Additive(TABLE, allowed=0.1 * TABLE.loss((3,) * 12))

    def points(seed: int) -> list[tuple[int, ...]]:
        config = GeneticConfig(population=8, generations=2, seed=seed)
        return [c.point for c in search(GeneticSearch(TABLE, config), truth)]

    assert points(1) == points(1)
    assert points(1) != points(2)


def test_a_search_of_everything_ends_early():
    small = synthetic(layers=2, choices=3)
    strategy = GeneticSearch(small, GeneticConfig(population=6, generations=100))
    told = list(search(strategy, Additive(small, allowed=0.01)))
    count = small.sizes[0] * small.sizes[1] - 1
    assert len(told) <= count < 600
    assert len(told) >= count - 2  # the last few may not be drawn in a whole generation


def test_a_mutation_changes_genes_within_the_table_and_mostly_by_one_step():
    steps = []
    with drawing_from(0, 0):
        for _ in range(300):
            genes = [0, 3, 6]
            (mutated,) = mutate(genes, sizes=(4, 7, 7), chance=0.5)
            assert mutated is genes
            assert all(0 <= gene < size for gene, size in zip(genes, (4, 7, 7), strict=True))
            steps += [abs(a - b) for a, b in zip(genes, (0, 3, 6), strict=True) if a != b]
    assert 0.6 < steps.count(1) / len(steps) < 0.95
    assert max(steps) > 2


def test_a_chance_of_nought_changes_nothing():
    assert mutate([1, 2, 3], sizes=(5, 5, 5), chance=0.0) == ([1, 2, 3],)


def test_the_same_generation_draws_the_same_and_leaves_no_trace():
    random.seed(7)
    before = random.getstate()
    with drawing_from(1, 2):
        first = random.random()
    with drawing_from(1, 2):
        assert random.random() == first
    with drawing_from(1, 3):
        assert random.random() != first
    assert random.getstate() == before


def test_the_global_generator_is_put_back_after_an_error():
    before = random.getstate()
    with pytest.raises(KeyError), drawing_from(0, 0):
        raise KeyError
    assert random.getstate() == before


def test_the_spread_takes_points_at_equal_distances_and_the_last():
    points = [(i,) for i in range(1, 13)]
    assert spread(points, 4) == [(3,), (6,), (9,), (12,)]
    assert spread(points[:2], 4) == points[:2]
    assert spread(points, 0) == []


def test_the_limit_lies_between_the_last_within_and_the_first_beyond():
    points = sorted(uniform_points(TABLE), key=TABLE.loss)[::9]
    losses = [TABLE.loss(point) for point in points]
    told = Additive(TABLE, allowed=0.1 * losses[2] * (1 + 1e-9))(points)
    assert losses[2] < loss_limit(TABLE, told) < losses[3]
    # One that is off does not move it.
    odd = Candidate(points[-1], replace(told[-1].costs, violation=-0.1))
    assert losses[2] < loss_limit(TABLE, [*told[:-1], odd]) < losses[3]


def test_the_limit_is_open_while_all_are_within_and_below_all_while_none_is():
    points = uniform_points(TABLE)[::9]
    losses = [TABLE.loss(point) for point in points]
    assert loss_limit(TABLE, Additive(TABLE, allowed=100.0)(points)) > max(losses)
    assert 0 < loss_limit(TABLE, Additive(TABLE, allowed=0.0)(points)) < min(losses)
