from search.ladder import LadderSearch
from search.strategy import Candidate
from tests.search.tables import timed

POINTS = [(i,) for i in range(16)]


def told(first_within):
    def answer(point):
        violation = -1.0 if point >= first_within else 1.0
        return Candidate(point, timed(0.0, violation, 1 - point[0] / 100))

    return answer


def climbed(ladder, answer):
    asked = []
    while points := ladder.ask():
        assert ladder.ask() == points
        asked += points
        ladder.tell([answer(point) for point in points])
    return asked


def test_the_boldest_that_keeps_the_budget_is_among_few_asked():
    for first in POINTS:
        asked = climbed(LadderSearch(POINTS), told(first))
        assert first in asked
        assert first == POINTS[0] or POINTS[first[0] - 1] in asked
        assert len(asked) <= 5


def test_where_none_keeps_it_the_safest_was_asked():
    assert climbed(LadderSearch(POINTS), told((99,)))[-1] == POINTS[-1]


def test_what_was_told_is_not_asked_and_the_limit_holds():
    ladder = LadderSearch(POINTS, max_evaluations=2)
    answer = told((0,))
    ladder.tell([answer((8,))])
    assert climbed(ladder, answer) == [(4,)]
    assert LadderSearch([]).ask() == []
