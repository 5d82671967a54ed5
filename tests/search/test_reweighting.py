from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from search.reweighting import FEWEST, FURTHEST, reweighted
from search.strategy import FAILED, Candidate
from tests.search.tables import Additive, synthetic

TABLE = synthetic(layers=6, choices=6)
WEIGHTS = (0.4, 0.6, 0.8, 1.2, 1.6, 2.0)


def drawn(count, seed):
    rng = np.random.default_rng(seed)
    points = [tuple(int(rng.integers(size)) for size in TABLE.sizes) for _ in range(count)]
    return list(dict.fromkeys(point for point in points if any(point)))


def weighed(weights):
    """The truth: the table with each layer's losses so many times as large."""
    layers = (
        replace(each, choices=tuple(replace(row, loss=weight * row.loss) for row in each.choices))
        for each, weight in zip(TABLE.layers, weights, strict=True)
    )
    return Additive(replace(TABLE, layers=tuple(layers)), allowed=0.05)


def noisy(told, deviation, seed=0):
    noise = deviation * np.random.default_rng(seed).standard_normal(len(told))
    return [
        replace(c, costs=replace(c.costs, loss=c.costs.loss + n, violation=c.costs.violation + n))
        for c, n in zip(told, noise.tolist(), strict=True)
    ]


def agreement(table, truth, points):
    """Rank correlation of predicted with true losses."""
    lost = [truth.loss(point) for point in points]
    return spearmanr([table.loss(point) for point in points], lost).statistic


def test_layers_that_matter_more_than_predicted_are_found_out():
    truth = weighed(WEIGHTS)
    found = reweighted(TABLE, truth(drawn(60, seed=0)))
    ratios = [
        new.choices[1].loss / old.choices[1].loss
        for new, old in zip(found.layers, TABLE.layers, strict=True)
    ]
    wanted = np.array(WEIGHTS) / np.mean(WEIGHTS)
    assert np.array(ratios) / np.mean(ratios) == pytest.approx(wanted, rel=0.1)
    unseen = drawn(200, seed=1)
    assert agreement(found, truth, unseen) > 0.99 > agreement(TABLE, truth, unseen)
    assert found.latency_ms((1,) * 6) == TABLE.latency_ms((1,) * 6)


def test_where_the_table_is_right_noise_hardly_leads_away_from_it():
    truth = weighed((1.0,) * 6)
    for seed in range(5):
        found = reweighted(TABLE, noisy(truth(drawn(40, seed)), 0.05, seed))
        assert agreement(found, truth, drawn(200, seed=9)) > 0.97


def test_few_candidates_change_nothing_and_failed_ones_count_for_none():
    truth = weighed(WEIGHTS)
    told = truth(drawn(FEWEST, seed=0))[: FEWEST - 1]
    failed = [Candidate(c.point, FAILED) for c in truth(drawn(30, seed=2))]
    assert reweighted(TABLE, [*told, *failed]) == TABLE


@pytest.mark.parametrize("slope", [0.0, -1.0])
def test_losses_that_do_not_rise_with_the_prediction_change_nothing(slope):
    told = replace(weighed(WEIGHTS), slope=slope)(drawn(30, seed=0))
    assert reweighted(TABLE, told) == TABLE


def test_no_layer_is_weighed_beyond_measure():
    told = weighed((1e-6, 1, 1, 1, 1, 1e6))(drawn(60, seed=0))
    found = reweighted(TABLE, told)
    for new, old in zip(found.layers, TABLE.layers, strict=True):
        ratio = new.choices[1].loss / old.choices[1].loss
        assert ratio * (1 + 1e-9) >= 1 / FURTHEST
        assert ratio <= FURTHEST * (1 + 1e-9)
