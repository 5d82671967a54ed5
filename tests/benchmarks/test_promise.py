import pytest

from benchmarks.promise import SETTINGS, STRATEGIES, counted, searched, targets
from benchmarks.worlds import Setting, World

MANY = 200_000


@pytest.mark.parametrize("metric", ["top1", "mse"])
def test_a_candidate_loses_what_is_said_to_be_true(metric):
    setting = Setting(metric=metric, allowed=0.02, search=MANY, confirmation=10)
    world = World(setting, 1)
    point = tuple(size - 1 for size in world.table.sizes)
    plan = world.table.plan(point)
    assert world.point(plan) == point
    dense, values = world.search.dense_values(metric), world.assemble(plan).values["search"].numpy()
    lost = (dense - values if metric == "top1" else values - dense).mean()
    assert lost == pytest.approx(world.true_loss(point), rel=0.03)


def test_a_candidate_is_the_same_each_time():
    world = World(SETTINGS["small"], 3)
    plan = world.table.plan((1,) * len(world.table.layers))
    first, second = world.assemble(plan), world.assemble(plan)
    assert first.values["search"].equal(second.values["search"])
    assert not first.values["search"].equal(world.opponent.values["search"])


@pytest.mark.parametrize("name", [name for name in SETTINGS if name.startswith("near")])
def test_near_the_budget_all_candidates_lose_more_than_is_allowed(name):
    world = World(SETTINGS[name], 5)
    for place in range(1, 7):
        assert world.true_loss((place,) * len(world.table.layers)) > SETTINGS[name].allowed


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_search_ends_with_a_verdict(strategy):
    found = searched("usual", strategy, 1)
    assert found["verdict"] in ("budget_met", "no_gain", "budget_missed")
    assert found["evaluations"] > 1
    assert found["speedup"] >= 1


def row(verdict, broken, **more):
    return {"verdict": verdict, "broken": broken, "speedup": 1.0, "best_speedup": 1.0,
            "evaluations": 4, "samples_seen": 1.0} | more  # fmt: skip


def test_broken_promises_are_counted_of_searches_and_of_those_met():
    found = counted(
        [row("budget_met", True), *[row("budget_met", False)] * 3, row("no_gain", False)]
    )
    assert (found["met"], found["broken"]) == (4, 1)
    assert (found["broken_share"], found["broken_of_met"]) == (0.2, 0.25)
    assert found["broken_share_at_most"] == pytest.approx(0.6574, abs=1e-4)
    assert [target.met for target in targets([found | {"setting": "usual"}])] == [False, False]
    assert [
        target.met for target in targets([found | {"setting": "near", "broken_share": 0.01}])
    ] == [True, True]
