import math

import pytest

from search.strategy import Candidate
from search.surrogate import limit, surrogate
from search.table import ChoiceRow, ChoiceTable, LayerRow
from tests.search.tables import timed


def row(loss, latency_ms):
    return ChoiceRow(choice=None, loss=loss, latency_ms=latency_ms, parameters=1, macs=1)


def table(dense_latency_ms=4.0):
    choices = (row(0.0, 3.0), row(0.1, 2.0), row(0.2, 1.0), row(0.4, 0.5))
    return ChoiceTable(
        layers=(LayerRow(name="a", choices=choices),),
        dense_latency_ms=dense_latency_ms,
        dense_parameters=1,
        dense_macs=1,
        kept_dense={},
    )


def told(*measured):
    return [Candidate((place,), timed(loss, loss, share)) for place, loss, share in measured]


def test_predictions_in_the_order_of_the_measurements_correlate_wholly():
    found = surrogate(table(), told((1, 0.0, 0.9), (2, 0.01, 0.5), (3, 0.02, 0.4)))
    assert found == {"candidates": 3, "loss": pytest.approx(1), "latency": pytest.approx(1)}


def test_predictions_in_the_wrong_order_correlate_less():
    found = surrogate(table(), told((1, 0.03, 0.4), (2, 0.01, 0.5), (3, 0.02, 0.9)))
    assert found["loss"] == pytest.approx(-0.5)
    assert found["latency"] == pytest.approx(-1)


def test_failed_and_few_candidates_say_nothing():
    failed = told((3, math.nan, math.nan))
    found = surrogate(table(), [*told((1, 0.0, 0.9), (2, 0.01, 0.5)), *failed])
    assert found == {"candidates": 2, "loss": None, "latency": None}


def test_losses_that_are_all_alike_have_no_order():
    found = surrogate(table(), told((1, 0.0, 0.9), (2, 0.0, 0.5), (3, 0.0, 0.4)))
    assert (found["loss"], found["latency"]) == (None, pytest.approx(1))


def test_the_limit_is_what_is_left_without_the_layers():
    assert limit(table(), 2.0) == {"speedup": 4.0, "achieved": pytest.approx(0.5 / 0.75)}
    assert limit(table(), 1.0)["achieved"] == 0


def test_layers_that_take_longer_than_the_network_leave_no_limit():
    assert limit(table(2.5), 2.0) == {"speedup": None, "achieved": pytest.approx(0.5)}
