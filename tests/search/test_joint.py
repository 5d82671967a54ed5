import math
from dataclasses import replace
from itertools import product

import pytest

from search.config import EstimationConfig
from search.estimation import EstimationSearch
from search.joint import JointTable, front, read_table, tables_of
from search.strategy import Candidate, Costs, best, search
from tests.search.joints import Biased, narrow, whole


@pytest.fixture
def joint():
    return JointTable((whole(), narrow()), {"b": "it is the last"})


def points(joint):
    for number, each in enumerate(joint.tables):
        for choices in product(*map(range, each.sizes)):
            yield (number, *choices)


def test_a_point_is_widths_first_and_then_a_choice_for_each_layer(joint):
    assert joint.plan((0, 0, 0)).to_json() == whole().plan((0, 0)).to_json()
    assert joint.plan((1, 1)).widths == {"a": 3}
    assert list(joint.plan((1, 1)).choices) == ["a"]
    assert joint.dense_point == (0, 0, 0)
    assert joint.of((1, 1)) == (joint.tables[1], (1,))


def test_costs_are_shares_of_the_dense_network_whatever_the_widths(joint):
    assert joint.cost((0, 0, 0)) == 1
    assert joint.cost((0, 1, 1)) == pytest.approx(0.6)
    assert joint.cost((1, 0)) == pytest.approx(0.6)
    assert joint.cost((1, 1)) == pytest.approx(0.5)
    chosen, choices = joint.of((1, 1))
    assert chosen.latency_ms(choices) == pytest.approx(5.0)
    assert joint.loss((1, 0)) == pytest.approx(0.05)
    assert joint.loss((1, 1)) == pytest.approx(0.08)
    assert chosen.parameters(choices) == 1250
    assert chosen.parameter_share(choices) == pytest.approx(1250 / 3010)
    assert chosen.macs(choices) == 12_500
    assert chosen.mac_share(choices) == pytest.approx(12_500 / 30_100)


def test_swaps_change_one_layer_at_the_same_widths(joint):
    (to_dense, saved, lost), to_itself = joint.swaps((1, 1))
    assert to_dense == (1, 0)
    assert (saved, lost) == pytest.approx((-0.1, -0.03))
    assert to_itself == ((1, 1), 0.0, 0.0)
    assert all(len(point) == 3 for point, _, _ in joint.swaps((0, 1, 1)))


def test_the_front_is_that_of_every_point_of_every_width(joint):
    everything = [(joint.loss(p), joint.cost(p), p) for p in points(joint)]
    wanted = [
        point
        for loss, cost, point in sorted(everything)
        if not any(
            (other[0] <= loss and other[1] <= cost and other[:2] != (loss, cost))
            for other in everything
        )
    ]
    assert front(joint) == wanted
    assert {point[0] for point in wanted} == {0, 1}


def test_the_front_of_one_table_is_its_own():
    assert front(whole())[0] == (0, 0)


def test_both_kinds_of_table_are_read_back(joint):
    assert read_table(joint.to_json()) == joint
    assert read_table(whole().to_json()) == whole()
    assert [len(tables_of(each)) for each in (joint, whole())] == [2, 1]


def test_a_network_with_widths_alone_is_not_without_choices():
    bare = replace(whole(), layers=())
    assert JointTable((bare,)).is_empty
    assert not JointTable((bare, narrow())).is_empty


def test_elsewhere_is_the_cheapest_within_the_loss_at_every_other_width(joint):
    assert list(joint.elsewhere((0, 0, 0), 0.06)) == [(1, 0)]
    assert list(joint.elsewhere((0, 0, 0), 0.09)) == [(1, 1)]
    assert list(joint.elsewhere((0, 0, 0), 0.01)) == []
    assert list(joint.elsewhere((1, 0), 0.035)) == [(0, 1, 1)]
    assert list(whole().elsewhere((0, 0), 1.0)) == []


def test_widths_that_are_a_little_dearer_by_prediction_are_asked_for_too():
    slow = replace(narrow(), narrowed=replace(narrow().start, latency_ms=6.5))
    joint = JointTable((whole(), slow))
    truth = Biased(joint, allowed=0.07)
    assert all(point[0] == 0 for point in front(joint) if joint.loss(point) <= 0.07)
    found = best(list(search(EstimationSearch(joint, EstimationConfig()), truth)))
    assert found.point == (1, 0)


@pytest.mark.parametrize("allowed", [0.015, 0.06, 0.1, 0.4])
def test_estimation_finds_the_cheapest_of_all_widths(joint, allowed):
    """Where losses and times are as predicted, one front is as good as trying everything."""

    def told(asked):
        return [
            Candidate(
                point,
                Costs(
                    loss=joint.loss(point),
                    violation=joint.loss(point) - allowed,
                    time_share=joint.cost(point),
                    parameter_share=1.0,
                    mac_share=1.0,
                    cost=joint.cost(point),
                ),
            )
            for point in asked
        ]

    found = list(search(EstimationSearch(joint, EstimationConfig()), told))
    within = [c.costs.cost for c in found if c.costs.is_feasible]
    wanted = min(joint.cost(p) for p in points(joint) if joint.loss(p) <= allowed)
    assert min(within, default=math.inf) == pytest.approx(wanted)
