import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.errors import UnstableError
from compress.plan import Plan
from search.config import Budget, Objective, Weights
from search.confirmation import confirm
from search.evaluation import loss_on
from search.finalists import BEYOND, MOST, finalists
from search.strategy import Candidate
from tests.search.subjects import WrittenSubject, config
from tests.search.tables import layer, row, table, timed

NAN = float("nan")
CHOICES = table(
    layer("conv", 2.0, 100, *(row(0.1 * i, 2.0 - 0.3 * i, 90 - 10 * i, (i,)) for i in range(1, 6)))
)


def candidate(index, violation, time_share, loss=0.0):
    return Candidate((index,), timed(loss, violation, time_share, 0.5))


def subject_of(budget, candidates, count=1000, dense_wrong=()):
    """A subject whose point (i,) gets `wrong` samples wrong and takes `time_share`."""
    subject = WrittenSubject(config(budget), torch.arange(count) % 4, dense_wrong)
    for index, (wrong, time_share) in candidates.items():
        subject.add(CHOICES.plan((index,)), range(wrong), time_share)
    return subject


def points(max_loss, confidence=None):
    return Budget(max_loss=max_loss, unit="points", metric="top1", confidence=confidence)


costs = st.builds(
    lambda loss, margin, time: timed(loss, loss + margin - 0.05, time, 0.5),
    st.floats(0, 0.2),
    st.floats(0, 0.1),
    st.floats(0.05, 1.5) | st.just(NAN),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(costs, max_size=5), st.permutations(range(1, 6)))
def test_finalists_get_faster_and_less_safe_one_after_the_other(many, places):
    candidates = [Candidate((place,), each) for place, each in zip(places, many, strict=False)]
    order = finalists(CHOICES, candidates, 0.05)
    assert len(order) <= MOST + BEYOND
    times = [c.costs.time_share for c in order]
    assert times == sorted(times, reverse=True)
    assert all(time < 1 for time in times)
    feasible = [c for c in candidates if c.costs.is_feasible and c.costs.time_share < 1]
    if feasible:  # the safest and the fastest of them are there, and none but them till then
        within = [c for c in order if c.costs.is_feasible]
        assert order[: len(within)] == within
        predicted = [CHOICES.loss(c.point) for c in within]
        assert predicted == sorted(predicted)
        assert predicted[0] == min(CHOICES.loss(c.point) for c in feasible)
        assert within[-1].costs.time_share == min(c.costs.time_share for c in feasible)


def test_of_candidates_that_lost_the_same_the_prediction_says_which_is_the_safer():
    """Few images: all of them lost nothing, and the fastest is not the only finalist."""
    told = [candidate(i, -0.002, 1 - 0.15 * i) for i in (3, 1, 4, 2)]
    assert [c.point for c in finalists(CHOICES, told, 0.01)] == [(1,), (2,), (3,), (4,)]


@pytest.mark.parametrize(
    ("last", "tested"),
    [
        (10, [1.1, 1.3, 1.6, 2.0]),
        (22, [1.1, 1.4, 1.7, 2.1, 2.6, 3.2]),
        (70, [1.1, 1.5, 1.9, 2.6, 3.4, 4.5, 6.0, 8.0]),
    ],
)
def test_of_many_those_are_tested_that_get_faster_at_equal_ratios(last, tested):
    """Each test may fail and end the testing: none that is hardly faster than another is tried."""
    speeds = [1 + 0.1 * i for i in range(1, last + 1)]
    rows = [row(0.01 * i, 2.0 - 0.02 * i, 90 - i, (i,)) for i in range(1, last + 1)]
    told = [candidate(i, -0.002, 1 / speed) for i, speed in enumerate(speeds, 1)]
    order = finalists(table(layer("conv", 2.0, 100, *rows)), told, 0.01)
    assert [1 / c.costs.time_share for c in order] == pytest.approx(tested)


def test_where_costs_lie_far_apart_none_is_left_out():
    told = [
        candidate(i, -0.002, share) for i, share in enumerate((0.48, 0.34, 0.16, 0.12, 0.09), 1)
    ]
    assert finalists(CHOICES, told, 0.01) == told


def test_failed_and_slower_candidates_are_no_finalists():
    candidates = [candidate(1, NAN, NAN), candidate(2, -0.1, 1.2), candidate(3, -0.05, 0.9)]
    assert finalists(CHOICES, candidates, 0.1) == [candidates[2]]


def test_bold_candidates_come_last_and_only_if_their_loss_itself_is_within():
    safe, bold = candidate(1, -0.01, 0.8), candidate(2, 0.01, 0.6, loss=0.02)
    hopeless = candidate(3, 0.3, 0.2, loss=0.3)
    assert finalists(CHOICES, [hopeless, bold, safe], 0.02) == [safe, bold]


def test_the_fastest_network_that_keeps_the_promise_wins():
    subject = subject_of(points(1), {1: (0, 0.8), 2: (5, 0.6), 3: (10, 0.4)})
    told = [candidate(1, -0.01, 0.8), candidate(2, -0.005, 0.6), candidate(3, 0, 0.4)]
    found = confirm(subject, CHOICES, subject.config, told)
    assert found.verdict == "budget_met"
    assert found.point == (3,)
    assert found.plan == CHOICES.plan((3,))
    assert found.model is subject.networks[found.plan.to_json()]
    assert found.measured["loss"]["value"] == pytest.approx(1.0)
    assert found.measured["speedup"] == pytest.approx(2.5)
    assert found.nearest_max_loss is None
    assert "Loses 1 points of top1 on 1,000 images" in found.sentence
    assert "2.50 times as fast as dense in eager" in found.sentence


def test_the_first_failure_ends_the_testing():
    subject = subject_of(points(1), {1: (0, 0.8), 2: (50, 0.6), 3: (5, 0.4)})
    told = [candidate(1, -0.01, 0.8), candidate(2, -0.005, 0.6), candidate(3, 0, 0.4)]
    found = confirm(subject, CHOICES, subject.config, told)
    assert found.point == (1,)
    assert [finalist.passed for finalist in found.tested] == [True, False]
    assert CHOICES.plan((3,)).to_json() not in subject.assembled


def test_of_those_that_passed_the_race_decides():
    subject = subject_of(points(1), {1: (0, 0.5), 2: (5, 0.6)})  # the order of the search was wrong
    told = [candidate(1, -0.01, 0.8), candidate(2, -0.005, 0.7)]
    assert confirm(subject, CHOICES, subject.config, told).point == (1,)


@pytest.mark.parametrize("time_share", [0.995, 1.0, 1.3])
def test_a_network_that_is_not_faster_beyond_noise_is_no_gain(time_share):
    subject = subject_of(points(1), {1: (0, time_share)})
    found = confirm(subject, CHOICES, subject.config, [candidate(1, -0.01, 0.9)])
    assert found.verdict == "no_gain"
    assert found.model is subject.dense
    assert found.plan == Plan()
    assert found.point == CHOICES.dense_point
    assert found.measured is None
    assert "no gain beyond the noise" in found.sentence


def by_macs(told, *networks):
    """A confirmation where MACs are minimised; of points with (point, MACs, time share)."""
    rows = [row(0.1 * i, 1.0, 50, (i,), macs=macs) for i, (_, macs, _) in enumerate(networks, 1)]
    choices = replace(table(layer("conv", 2.0, 100, *rows)), weights=Weights(macs=1.0))
    subject = subject_of(points(1), {})
    subject.config = replace(subject.config, objective=Objective(device="cpu", minimise="macs"))
    for index, _, time_share in networks:
        subject.add(choices.plan((index,)), (), time_share)
    return confirm(subject, choices, subject.config, told)


def costing(index, time_share, cost):
    return Candidate((index,), replace(timed(0.0, -0.01, time_share), cost=cost))


def test_where_macs_are_minimised_fewer_are_a_gain_though_it_is_slower():
    found = by_macs([costing(1, 1.5, 0.6)], (1, 560, 1.5))
    assert found.verdict == "budget_met"
    assert found.measured["cost"] == pytest.approx(660 / 1100)
    assert found.measured["speedup"] == pytest.approx(1 / 1.5)
    assert "0.67 times as fast as dense" in found.sentence
    assert "with 60.0 % of its MACs." in found.sentence


def test_of_those_that_passed_the_one_of_fewest_macs_is_taken_not_the_fastest():
    told = [costing(1, 0.5, 0.9), costing(2, 1.2, 0.5)]
    assert by_macs(told, (1, 890, 0.5), (2, 450, 1.2)).point == (2,)


def test_as_many_macs_are_no_gain_however_fast():
    found = by_macs([costing(1, 0.5, 1.0)], (1, 1000, 0.5))
    assert found.verdict == "no_gain"
    assert "none was cheaper than the dense one" in found.sentence


def test_a_weighted_cost_is_a_gain_only_beyond_the_noise_of_its_time():
    choices = table(layer("conv", 2.0, 100, row(0.1, 1.0, 45)))  # half of the parameters
    verdicts = []
    for weight in (1.0, 9.0):
        weights = Weights(latency=weight, parameters=1.0)
        subject = subject_of(points(1), {})
        objective = Objective(device="cpu", minimise="weighted", weights=weights)
        subject.config = replace(subject.config, objective=objective)
        subject.add(choices.plan((1,)), (), 1.05)
        made = replace(choices, weights=weights)
        told = [costing(1, 0.9, 0.9)]  # by the search
        verdicts.append(confirm(subject, made, subject.config, told).verdict)
    assert verdicts == ["budget_met", "no_gain"]


def test_a_missed_budget_still_ends_with_a_network_and_a_budget_that_it_keeps():
    subject = subject_of(points(1, 0.95), {1: (50, 0.8), 2: (80, 0.5)})
    told = [candidate(2, 0.08, 0.5), candidate(1, 0.05, 0.8)]
    found = confirm(subject, CHOICES, subject.config, told)
    assert found.verdict == "budget_missed"
    assert found.point == (1,)
    assert found.measured["speedup"] == pytest.approx(1.25)
    assert f"keeps is {found.nearest_max_loss:g} points" in found.sentence
    for max_loss, keeps in ((found.nearest_max_loss, True), (found.nearest_max_loss - 0.1, False)):
        budget = points(max_loss, 0.95)
        loss = loss_on(subject.confirmation, found.model, budget)
        assert (loss.violation(budget.allowed(1.0)) <= 0) is keeps


def test_the_nearest_relative_budget_is_in_percent_of_dense():
    budget = Budget(max_loss=1, unit="relative_percent", metric="top1", confidence=None)
    subject = subject_of(budget, {1: (600, 0.8)}, dense_wrong=range(500))
    found = confirm(subject, CHOICES, subject.config, [candidate(1, 0.05, 0.8)])
    assert found.nearest_max_loss == pytest.approx(20)  # 10 points of 50
    assert "relative percent" in found.sentence


def test_too_few_images_are_told_how_many_it_would_take():
    subject = subject_of(points(0.5, 0.95), {1: (0, 0.8)}, count=300)
    found = confirm(subject, CHOICES, subject.config, [candidate(1, 0.001, 0.8)])
    assert found.verdict == "budget_missed"  # 300 images without a single loss bound it by 1 point
    assert (
        "at least 598 confirmation images" in found.sentence
    )  # log(0.05) / log(1 - 0.005) rounded up


def test_without_a_faster_layer_the_sentence_says_so():
    subject = subject_of(points(1), {})
    empty = table()
    found = confirm(subject, empty, subject.config, [])
    assert found.verdict == "no_gain"
    assert "No layer has a form that is faster" in found.sentence


def test_without_a_faster_candidate_the_sentence_says_how_many_were_tried():
    subject = subject_of(points(1), {})
    found = confirm(subject, CHOICES, subject.config, [candidate(1, -0.01, 1.1)])
    assert found.verdict == "no_gain"
    assert "Of 1 networks that were tried none was faster" in found.sentence


def test_a_search_that_had_no_time_says_so():
    subject = subject_of(points(1), {})
    found = confirm(subject, CHOICES, subject.config, [])
    assert found.verdict == "no_gain"
    assert "limits were reached before" in found.sentence


def test_answers_that_are_not_finite_end_the_testing():
    subject = subject_of(points(1), {1: (0, 0.8), 2: (0, 0.6), 3: (0, 0.4)})
    subject.networks[CHOICES.plan((2,)).to_json()].answers[5] = math.inf
    told = [candidate(1, -0.01, 0.8), candidate(2, -0.005, 0.6), candidate(3, 0, 0.4)]
    assert confirm(subject, CHOICES, subject.config, told).point == (1,)
    assert CHOICES.plan((3,)).to_json() not in subject.assembled


def test_testing_several_lets_a_broken_promise_through_no_more_often_than_testing_one():
    """Five networks that lose exactly what is not allowed any more, independently."""
    rng = np.random.default_rng(0)
    runs, count, share = 300, 400, 0.05
    told = [candidate(i, -0.01 / i, 1 - 0.1 * i) for i in range(1, 6)]
    wrongly = 0
    for _ in range(runs):
        subject = subject_of(points(100 * share, 0.95), {}, count)
        for i in range(1, 6):
            subject.add(CHOICES.plan((i,)), np.flatnonzero(rng.random(count) < share), 1 - 0.1 * i)
        wrongly += confirm(subject, CHOICES, subject.config, told).verdict == "budget_met"
    # 5 % of 300 are 15, with a standard deviation of 3.8; testing the four finalists each on its
    # own would let 56 through.
    assert wrongly <= 26


def test_a_finalist_that_is_unstable_when_it_is_made_anew_ends_the_testing():
    subject = subject_of(points(5), {1: (0, 0.9), 2: (0, 0.7), 3: (0, 0.5)})
    subject.networks[CHOICES.plan((2,)).to_json()] = UnstableError("outputs drift apart")
    candidates = [candidate(i, -0.05, 1.1 - 0.2 * i) for i in (1, 2, 3)]
    found = confirm(subject, CHOICES, subject.config, candidates)
    assert [tested.point for tested in found.tested] == [(1,)]
    assert (found.verdict, found.point) == ("budget_met", (1,))
