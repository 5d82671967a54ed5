import json
from dataclasses import replace

import pytest

from compress.plan import Choice, Plan
from search.config import Weights
from search.table import ChoiceTable
from tests.search.tables import layer, row, synthetic, table

TABLE = table(
    layer("conv1", 2.0, 1000, row(0.01, 1.5, 700, ranks=(48,)), row(0.2, 0.5, 200, ranks=(16,))),
    layer("fc", 1.0, 400, row(0.05, 0.25, 100, ranks=(8,)), vbmf=1),
    rest_ms=4.0,
    rest_parameters=50,
)


def test_dense_costs_what_the_network_costs():
    dense = TABLE.dense_point
    assert dense == (0, 0)
    assert TABLE.latency_ms(dense) == TABLE.dense_latency_ms == 7.0
    assert TABLE.parameters(dense) == TABLE.dense_parameters == 1450
    assert TABLE.macs(dense) == TABLE.dense_macs == 14_500
    assert TABLE.loss(dense) == 0.0
    assert len(TABLE.plan(dense)) == 0


def test_a_point_costs_dense_less_what_its_layers_save():
    point = (2, 1)
    assert TABLE.latency_ms(point) == pytest.approx(0.5 + 0.25 + 4.0)
    assert TABLE.parameters(point) == 200 + 100 + 50
    assert TABLE.macs(point) == 2000 + 1000 + 500
    assert TABLE.loss(point) == pytest.approx(0.25)


def test_a_plan_names_the_layers_that_are_not_dense():
    assert TABLE.plan((0, 1)) == Plan({"fc": Choice("svd", (8,))})
    assert TABLE.plan((2, 1)) == Plan({"conv1": Choice("svd", (16,)), "fc": Choice("svd", (8,))})


def test_the_sizes_count_dense():
    assert TABLE.sizes == (3, 2)


def test_a_point_of_another_network_is_refused():
    with pytest.raises(ValueError, match="zip"):
        TABLE.latency_ms((0, 0, 0))


def test_a_cost_is_the_share_of_dense_that_the_weights_say():
    point = (1, 1)
    shares = {
        Weights(latency=2.0): TABLE.latency_ms(point) / TABLE.dense_latency_ms,
        Weights(macs=0.5): TABLE.mac_share(point),
        Weights(parameters=1.0): TABLE.parameter_share(point),
    }
    assert TABLE.mac_share(point) == TABLE.macs(point) / TABLE.dense_macs
    for weights, share in shares.items():
        made = replace(TABLE, weights=weights)
        assert made.cost(point) == pytest.approx(share)
        assert made.cost(made.dense_point) == 1
        dense, row = made.layers[0].choices[:2]
        saved = made.row_cost(dense) - made.row_cost(row)
        assert made.cost((1, 0)) == pytest.approx(1 - saved)
    mean = sum(shares.values()) / 3
    even = replace(TABLE, weights=Weights(latency=1.0, macs=1.0, parameters=1.0))
    assert even.cost(point) == pytest.approx(mean)


def test_a_table_of_before_there_were_weights_minimises_latency():
    document = json.loads(TABLE.to_json())
    del document["weights"]
    assert ChoiceTable.from_json(json.dumps(document)) == TABLE


@pytest.mark.parametrize(
    "made",
    [TABLE, synthetic(layers=5, choices=6), table(), replace(TABLE, weights=Weights(macs=2.0))],
)
def test_a_table_survives_json(made):
    read = ChoiceTable.from_json(made.to_json())
    assert read == made
    assert read.sizes == made.sizes
    assert hash(read.layers) == hash(made.layers)  # tuples all the way down, not lists


def test_the_json_holds_the_reasons_of_what_stays_dense():
    made = ChoiceTable(
        layers=(),
        dense_latency_ms=1.0,
        dense_parameters=1,
        dense_macs=1,
        kept_dense={"norm": "no method"},
    )
    assert json.loads(made.to_json())["kept_dense"] == {"norm": "no method"}
    assert ChoiceTable.from_json(made.to_json()).kept_dense == {"norm": "no method"}
