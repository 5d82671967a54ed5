import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.errors import CompressError
from compress.plan import Choice, Plan
from search.config import Budget, Weights
from search.evaluation import AnswerError, Evaluator, loss_on, plan_key
from tests.search.subjects import (
    Lookup,
    WrittenSubject,
    config,
    right_and_wrong,
    samples,
)
from tests.search.tables import layer, row, table

POINTS = {"unit": "points", "metric": "top1"}


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 700),
    seed=st.integers(0, 1000),
    dense_wrong=st.floats(0, 1),
    wrong=st.floats(0, 1),
)
def test_the_paired_loss_counts_who_got_worse_and_who_got_better(count, seed, dense_wrong, wrong):
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(rng.integers(0, 4, count))
    sets = [set(np.flatnonzero(rng.random(count) < share)) for share in (dense_wrong, wrong)]
    dense, candidate = (Lookup(right_and_wrong(labels, each)) for each in sets)
    found = loss_on(samples(labels, dense), candidate, Budget(max_loss=1, **POINTS))
    assert found.samples == count
    assert found.worse == len(sets[1] - sets[0])
    assert found.better == len(sets[0] - sets[1])
    assert found.value == pytest.approx((len(sets[1]) - len(sets[0])) / count)


def test_each_metric_is_what_its_definition_says():
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 7, (300,), generator=generator)
    dense, candidate = (torch.randn(300, 7, generator=generator) for _ in range(2))
    split = samples(labels, Lookup(dense))
    rows = list(zip(candidate.tolist(), dense.tolist(), labels.tolist(), strict=True))
    wanted = {
        "top1": [float(a.index(max(a)) == y) for a, _, y in rows],
        "top5": [float(a[y] in sorted(a)[2:]) for a, _, y in rows],
        "agreement": [float(a.index(max(a)) == b.index(max(b))) for a, b, _ in rows],
        "loss": [math.log(sum(map(math.exp, a))) - a[y] for a, _, y in rows],
        "mse": [math.dist(a, b) ** 2 / 7 for a, b, _ in rows],
    }
    for metric, values in wanted.items():
        # Float32 round-off of a sum of seven terms.
        assert split.values(metric, candidate) == pytest.approx(
            [float(v) for v in values], abs=1e-5
        ), metric


def test_metrics_of_a_part_belong_to_the_right_samples():
    labels = torch.arange(10) % 4
    split = samples(labels, Lookup(right_and_wrong(labels, [])))
    answers = right_and_wrong(labels, [7])
    assert split.values("top1", answers[5:], start=5).tolist() == [1, 1, 0, 1, 1]
    assert split.values("agreement", answers[5:], start=5).tolist() == [1, 1, 0, 1, 1]


@pytest.mark.parametrize(("wrong", "seen"), [(range(2000), 256), (range(100), 2000), ([], 2000)])
def test_only_what_is_clearly_outside_is_stopped_early(wrong, seen):
    labels = torch.arange(2000) % 4
    split = samples(labels, Lookup(right_and_wrong(labels, [])))
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(0))
    network = Lookup(right_and_wrong(labels, order[list(wrong)]))
    budget = Budget(max_loss=4, **POINTS)  # 100 wrong of 2,000 are 5 points: outside, barely
    found = loss_on(split, network, budget, stop_early=True)
    assert found.samples == seen
    assert len(network.asked) == seen
    assert loss_on(split, network, budget).samples == 2000


def test_a_point_within_the_budget_is_feasible_and_has_seen_every_sample():
    labels = torch.arange(1000) % 4
    subject = WrittenSubject(config(Budget(max_loss=1.5, **POINTS)), labels)
    choices = table(layer("conv", 2.0, 100, row(0.1, 1.0, 40)))
    subject.add(choices.plan((1,)), wrong=range(5), time_share=0.6)
    found = Evaluator(subject, choices, subject.config.budget).evaluate((1,))
    assert found.costs.loss == pytest.approx(0.005)
    assert 0.005 < found.costs.violation + 0.015 < 0.015  # the bound, between loss and budget
    assert found.costs.is_feasible
    assert found.costs.time_share == 0.6
    assert found.costs.parameter_share == pytest.approx(50 / 110)
    assert found.costs.mac_share == pytest.approx(50 / 110)
    assert found.costs.cost == found.measured["cost"] == 0.6
    assert found.reason is None
    shown = found.measured
    assert shown["loss"] == {
        "value": pytest.approx(0.5),
        "upper": pytest.approx(100 * found.costs.violation + 1.5),
        "allowed": pytest.approx(1.5),
        "unit": "points",
        "metric": "top1",
        "samples": 1000,
        "worse": 5,
        "better": 0,
    }
    assert shown["speedup"] == pytest.approx(1 / 0.6)
    assert shown["speedup_low"] < shown["speedup"] < shown["speedup_high"]
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown


def test_the_cost_of_a_point_is_what_the_table_minimises():
    labels = torch.arange(100) % 4
    subject = WrittenSubject(config(Budget(max_loss=10, **POINTS)), labels)
    choices = table(layer("conv", 2.0, 100, row(0.1, 1.0, 45, macs=200)))
    subject.add(choices.plan((1,)), time_share=1.5)
    weights = Weights(latency=1.0, macs=2.0, parameters=1.0)
    found = Evaluator(subject, replace(choices, weights=weights), subject.config.budget)
    costs = found.evaluate((1,)).costs
    assert (costs.time_share, costs.parameter_share) == (1.5, 0.5)
    assert costs.mac_share == pytest.approx(300 / 1100)
    assert costs.cost == pytest.approx((1.5 + 2 * 300 / 1100 + 0.5) / 4)


def test_a_relative_budget_is_a_share_of_what_dense_reaches():
    labels = torch.arange(1000) % 4
    budget = Budget(max_loss=2, unit="relative_percent", metric="top1", confidence=None)
    subject = WrittenSubject(config(budget), labels, dense_wrong=range(500))
    choices = table(layer("conv", 2.0, 100, row(0.1, 1.0, 40), row(0.2, 0.9, 30, (8,))))
    subject.add(choices.plan((1,)), wrong=range(510))
    subject.add(choices.plan((2,)), wrong=range(511))
    evaluator = Evaluator(subject, choices, budget)
    assert evaluator.evaluate((1,)).costs.is_feasible  # a point is 2 % of 50 %
    assert not evaluator.evaluate((2,)).costs.is_feasible


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_answers_that_are_not_finite_fail_the_candidate_and_nothing_else(value):
    labels = torch.arange(100) % 4
    subject = WrittenSubject(config(Budget(max_loss=1, **POINTS)), labels)
    choices = table(layer("conv", 2.0, 100, row(0.1, 1.0, 40)))
    subject.add(choices.plan((1,)))
    subject.networks[choices.plan((1,)).to_json()].answers[70, 2] = value
    found = Evaluator(subject, choices, subject.config.budget).evaluate((1,))
    assert math.isnan(found.costs.loss)
    assert math.isnan(found.costs.time_share)
    assert not found.costs.is_feasible
    assert "not finite" in found.reason
    assert found.measured == {}


def test_a_plan_that_cannot_be_assembled_says_in_which_layer():
    labels = torch.arange(100) % 4
    subject = WrittenSubject(config(Budget(max_loss=1, **POINTS)), labels)
    choices = table(layer("conv", 2.0, 100, row(0.1, 1.0, 40)))
    error = CompressError("it does not converge")
    error.add_note("in layer 'conv'")
    subject.networks[choices.plan((1,)).to_json()] = error
    found = Evaluator(subject, choices, subject.config.budget).evaluate((1,))
    assert math.isnan(found.costs.violation)
    assert found.reason == "CompressError: it does not converge; in layer 'conv'"


def test_a_fault_of_ours_is_not_taken_for_a_failed_candidate():
    labels = torch.arange(100) % 4
    subject = WrittenSubject(config(Budget(max_loss=1, **POINTS)), labels)
    choices = table(layer("conv", 2.0, 100, row(0.1, 1.0, 40)))
    subject.networks[choices.plan((1,)).to_json()] = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        Evaluator(subject, choices, subject.config.budget).evaluate((1,))


def test_loss_on_refuses_answers_that_are_not_finite():
    labels = torch.arange(10) % 4
    split = samples(labels, Lookup(right_and_wrong(labels, [])))
    with pytest.raises(AnswerError, match="not finite"):
        loss_on(split, Lookup(torch.full((10, 4), float("nan"))), Budget(max_loss=1, **POINTS))


def test_equal_plans_have_equal_keys_whatever_their_order():
    one, two = Choice("svd", (16,)), Choice("tucker2", (8, 8))
    assert plan_key(Plan({"a": one, "b": two})) == plan_key(Plan({"b": two, "a": one}))
    assert plan_key(Plan({"a": one})) != plan_key(Plan({"a": two}))
    assert plan_key(Plan({"a": one})) != plan_key(Plan({"b": one}))
