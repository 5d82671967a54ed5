import pytest

from benchmarks.noise import row, targets
from search.measurement import Ratio

WHO = {"network": "N", "runtime": "eager", "batch": 1}


def test_a_race_calls_a_copy_faster_or_slower_where_its_interval_leaves_out_one():
    ratios = [Ratio(0.98, 0.97, 0.99), Ratio(1.0, 0.99, 1.01), Ratio(1.03, 1.01, 1.05)]
    assert row(WHO, ratios) == WHO | {
        "races": 3,
        "called_faster": 1,
        "called_slower": 1,
        "least": 0.98,
        "greatest": 1.03,
        "half_width": pytest.approx(0.01),
    }


def test_the_shares_are_of_all_races():
    quiet = row(WHO, [Ratio(1.0, 0.99, 1.01)] * 78)
    loud = row(WHO, [Ratio(0.98, 0.97, 0.99)] * 2)
    faster, slower = targets([quiet, loud])
    assert (faster.value, faster.met) == (0.025, True)
    assert (slower.value, slower.met) == (0.0, True)
    assert not targets([loud])[0].met
    assert not targets([])[0].met
