from dataclasses import replace

import pytest

from search.prediction import saving_scale
from search.strategy import Candidate
from tests.search.tables import Additive, synthetic

TABLE = synthetic(layers=4, choices=5)
POINTS = [(1, 1, 1, 1), (2, 1, 2, 3), (0, 0, 1, 0)]


def told(real: float) -> list[Candidate]:
    """Candidates that save a share of what the table says."""
    made = Additive(TABLE, allowed=1.0)(POINTS)
    shares = [1 - real * (1 - c.costs.cost) for c in made]
    pairs = zip(made, shares, strict=True)
    return [Candidate(c.point, replace(c.costs, cost=share)) for c, share in pairs]


def test_the_scale_is_the_share_of_the_predicted_saving_that_is_real():
    assert saving_scale(TABLE, told(real=0.6)) == pytest.approx(0.6)


def test_the_scale_is_one_before_anything_is_told():
    assert saving_scale(TABLE, []) == 1.0


def test_a_failed_candidate_says_nothing_of_the_scale():
    failed = Candidate((3, 3, 3, 3), replace(told(1.0)[0].costs, cost=float("nan")))
    assert saving_scale(TABLE, [failed]) == 1.0
    assert saving_scale(TABLE, [*told(real=0.6), failed]) == pytest.approx(0.6)
