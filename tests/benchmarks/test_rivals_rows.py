import json

import pytest

from benchmarks import tables
from benchmarks.rivals.contest import Run
from benchmarks.rivals.delivery import Delivery
from benchmarks.rivals.rows import marked, row
from benchmarks.rivals.targets import targets
from search.strategy import Candidate
from tests.benchmarks.test_tables import RECORD
from tests.search.tables import timed


def run_of(*time_shares, seconds=1.0):
    costs = [timed(0.004, -0.006, share, 0.5) for share in time_shares]
    return Run([Candidate((i,), each) for i, each in enumerate(costs)], seconds)


def delivered(run, verdict):
    """The first finalist."""
    finalist = run.finalists[0]
    return finalist, Delivery(1 / finalist.costs.time_share, {"value": 0.5}, verdict)


def who(rival, kind):
    return {"network": "N", "rival": rival, "kind": kind}


RUNS = {
    "estimation": [run_of(0.8, 0.5)],
    "genetic": [run_of(0.5, 0.4), run_of(0.9, 0.4), run_of(0.5, 0.4)],
    "plain DEAP": [run_of(0.9, 0.8, 0.505), run_of(0.9), run_of(0.9, 0.5)],
    "Torch-Pruning": [run_of(0.2)],
}
VERDICTS = ("budget_missed", "budget_met")
KINDS = {"estimation": "ours", "genetic": "ours", "plain DEAP": "search"}


@pytest.fixture
def rows():
    made = [
        row(
            who(name, KINDS.get(name, "recipe")),
            runs,
            [delivered(run, VERDICTS[name in KINDS]) for run in runs],
        )
        for name, runs in RUNS.items()
    ]  # fmt: skip
    return {each["rival"]: each for each in marked(made, list(RUNS.values()))}


def test_a_row_is_the_median_over_its_seeds(rows):
    plain = rows["plain DEAP"]
    assert (plain["seeds"], plain["evaluations"], plain["kept"]) == (3, 2, 3)
    assert plain["speedup"] == pytest.approx(1 / 0.505)
    assert (plain["speedup_least"], plain["speedup_most"]) == pytest.approx((1 / 0.9, 2.0))
    assert plain["loss"] == pytest.approx(0.4)
    assert plain["confirmed_loss"] == 0.5
    assert plain["any_time"]["2"] == pytest.approx(1 / 0.8)


def test_a_run_without_a_network_delivers_dense():
    nothing = Run([Candidate((0,), timed(0.1, 0.1, 0.1, 0.1))], 1.0)
    found = row(who("EVBMF", "rule"), [nothing], [None])
    assert (found["speedup"], found["found"], found["kept"]) == (1.0, 0, 0)
    assert found["loss"] is None
    assert found["confirmed_loss"] is None


def test_evaluations_to_a_mark_allow_for_the_noise_of_a_timing(rows):
    assert rows["estimation"]["to_estimation"] == 2
    assert rows["plain DEAP"]["to_estimation"] == 3  # 1 / 0.505 is within 5 % of 1 / 0.5
    assert rows["plain DEAP"]["reached_estimation"] == 2
    assert rows["plain DEAP"]["to_genetic"] is None
    assert rows["genetic"]["to_estimation"] == 1


def test_what_breaks_the_budget_is_no_rival_to_be_reached(rows):
    found = targets(list(rows.values()))
    # evaluations, against the plain search, its 3 over 2, genetic over estimation, 2 over 2
    assert [target.value for target in found] == [2, 1.01, 1.5, 1.25, 1.0]
    assert [target.met for target in found] == [True, True, False, True, False]


def test_where_no_search_was_as_fast_the_figure_is_a_lower_bound(rows):
    rows["plain DEAP"]["to_estimation"] = None
    rows["plain DEAP"]["evaluations"] = 100
    assert targets(list(rows.values()))[2].value == 50


def test_rows_in_which_ours_loses_stay_in_the_table(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    record = RECORD | {"rows": list(rows.values()), "n": 3}
    (tmp_path / "rivals-n.json").write_text(json.dumps(record))
    lines = tables.section("rivals-n").splitlines()
    assert lines[0].startswith("| rival | speedup |")
    assert [line.split(" | ")[0] for line in lines[2:6]] == [
        "| Torch-Pruning", "| **genetic**", "| **estimation**", "| plain DEAP"
    ]  # fmt: skip
    assert "| Torch-Pruning | 5.00x | 0.40 | 0.50 | 0 of 1 | 1 | 1 | 1 |" in lines[2]
    assert "n = 3 runs of what draws by chance" in "\n".join(lines)
    assert "| plain DEAP | 1.98x (1.11 to 2.00) | 0.40 | 0.50 | 3 of 3 | 2 | 1 | 3 |" in lines[5]


def test_a_speedup_of_ours_whose_budget_did_not_hold_is_none(rows):
    rows["estimation"]["kept"] = 0
    target = targets(list(rows.values()))[1]
    assert (target.value, target.met) == (None, False)
