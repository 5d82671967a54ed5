import math

import pytest

from benchmarks.rivals.contest import Run, median, run
from benchmarks.rivals.journal import Journal
from search.strategy import FAILED, Candidate
from tests.search.tables import Additive, all_points, synthetic, timed


def costs(time_share, violation=-1.0):
    return timed(0.0, violation, time_share)


RUN = Run(
    [
        Candidate((0,), costs(0.9)),
        Candidate((1,), costs(0.2, violation=1.0)),
        Candidate((2,), costs(0.5)),
        Candidate((3,), costs(0.8)),
    ],
    1.0,
)


class Batches:
    """A strategy that asks so many points at a time, for ever."""

    def __init__(self, size):
        self._size = size
        self.told = []

    def ask(self):
        first = len(self.told)
        return [(i,) for i in range(first, first + self._size)]

    def tell(self, candidates):
        self.told += candidates


def test_a_run_ends_with_its_evaluations_in_the_middle_of_an_ask():
    strategy = Batches(4)
    ended = run(strategy, lambda point: (costs(1 / (1 + point[0])), 10.0), max_evaluations=6)
    assert [c.point for c in ended.candidates] == [(i,) for i in range(6)]
    assert [c.point for c in strategy.told] == [(i,) for i in range(6)]
    assert 60.0 <= ended.seconds < 61.0
    assert [c.point for c in ended.finalists] == [(5,), (4,), (3,)]


def test_a_run_ends_when_nothing_is_asked():
    assert run(Batches(0), lambda _: (costs(1.0), 1.0), max_evaluations=5).candidates == []


def test_the_best_any_time_keeps_the_budget():
    assert [RUN.speedup_after(n) for n in range(5)] == [1.0, 1 / 0.9, 1 / 0.9, 2.0, 2.0]
    assert RUN.evaluations_to(1.0) == 1
    assert RUN.evaluations_to(2.0) == 3
    assert RUN.evaluations_to(2.1) is None


def test_what_breaks_the_budget_is_no_finalist():
    assert [c.point for c in RUN.finalists] == [(2,), (3,), (0,)]


def test_a_network_slower_than_dense_is_no_gain():
    assert Run([Candidate((0,), costs(1.5))], 1.0).speedup_after(1) == 1.0


@pytest.mark.parametrize(
    ("values", "middle"),
    [([3.0, 1.0, 2.0], 2.0), ([1.0, 2.0], 2.0), ([5.0, None, None], None), ([5.0, None, 1.0], 5.0)],
)
def test_what_never_came_is_the_greatest_of_values(values, middle):
    assert median(values) == middle


def test_a_journal_gives_back_what_was_put_in_after_a_restart(tmp_path):
    file = tmp_path / "folder" / "network.jsonl"
    journal = Journal(file)
    assert journal.get("a") is None
    journal.put("a", costs(0.25), 1.5)
    journal.put("b", FAILED, 2.0)
    with file.open("a") as lines:
        lines.write('\n{"key": "c", "lo')  # stopped while writing
    again = Journal(file)
    assert len(again) == 2
    assert again.get("a") == (costs(0.25), 1.5)
    failed = again.get("b")
    assert failed is not None
    assert math.isnan(failed[0].violation)
    assert again.get("c") is None


def test_the_journal_goes_on_behind_a_line_that_was_cut_off(tmp_path):
    file = tmp_path / "network.jsonl"
    file.write_text('{"key": "c", "lo')
    Journal(file).put("a", costs(0.5), 1.0)
    assert Journal(file).get("a") == (costs(0.5), 1.0)


def test_every_point_costs_the_same_for_all(tmp_path):
    made = synthetic(layers=2, choices=3)
    truth = Additive(made, allowed=0.1)
    journal = Journal(tmp_path / "network.jsonl")
    for point in all_points(made):
        journal.put(str(point), truth.costs(point), 1.0)
    assert [journal.get(str(p)) for p in all_points(made)] == [
        (truth.costs(p), 1.0) for p in all_points(made)
    ]
