import pytest

from search.config import (
    Budget,
    EstimationConfig,
    GeneticConfig,
    Limits,
    SearchConfig,
    StrategyConfig,
    VbmfConfig,
)
from workers.pace import MILESTONES, Pace, most_evaluations

BUDGET = Budget(max_loss=1.0, unit="points")


def pace(evaluations_max: int = 10, now: float = 100.0) -> Pace:
    return Pace(evaluations_max=evaluations_max, started=40.0, clock=lambda: now)


@pytest.mark.parametrize(
    ("search", "limit", "most"),
    [
        (EstimationConfig(max_evaluations=9), 400, 9),
        (EstimationConfig(max_evaluations=9), 4, 4),
        (GeneticConfig(population=6, generations=5), 400, 30),
        (VbmfConfig(), 400, 1),
    ],
)
def test_a_search_ends_at_the_lesser_of_its_own_end_and_the_limit(
    search: StrategyConfig, limit: int, most: int
):
    limits = Limits(max_evaluations=limit)
    assert most_evaluations(SearchConfig(budget=BUDGET, search=search, limits=limits)) == most


def test_the_fraction_never_falls_on_the_way():
    counted = pace(4)
    fractions = []
    for phase in MILESTONES:
        fractions += [counted.as_json(phase, share)["fraction"] for share in (0.0, 0.5, 1.0)]
        if phase == "searching":
            for _ in range(5):  # one more than was expected
                counted.evaluated(1.0)
                fractions.append(counted.as_json(phase)["fraction"])
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)


def test_an_evaluation_under_way_counts_by_its_share():
    counted = pace(4)
    counted.evaluated(1.0)
    begin, end = MILESTONES["searching"], MILESTONES["confirming"]
    told = counted.as_json("searching", 0.5, "recovery: epoch 1")
    assert told["fraction"] == pytest.approx(begin + (end - begin) * 1.5 / 4, abs=1e-4)
    assert told["message"] == "recovery: epoch 1"


def test_the_time_left_is_that_of_the_evaluations_to_come():
    counted = pace(10)
    assert counted.as_json("searching")["eta_seconds"] is None
    for seconds in (1.0, 2.0, 60.0):
        counted.evaluated(seconds)
    progress = counted.as_json("searching")
    assert progress["eta_seconds"] == 7 * 2.0  # the median bears with one that was disturbed
    assert (progress["evaluations_done"], progress["evaluations_max"]) == (3, 10)


def test_the_seconds_of_earlier_attempts_count():
    assert pace(now=100.0).as_json("loading")["seconds"] == 60.0
