import dataclasses
import math
import subprocess
import sys
from typing import get_args, get_type_hints

import annotated_types
import pytest

from search import config
from search.config import (
    COUNTED,
    LATENCY,
    UNLABELLED,
    Augmentation,
    Budget,
    ConfigError,
    EstimationConfig,
    GeneticConfig,
    Limits,
    Metric,
    Objective,
    Recovery,
    SearchConfig,
    StrategyConfig,
    UniformConfig,
    VbmfConfig,
    Weights,
)

CONFIGS = [
    Augmentation,
    EstimationConfig,
    GeneticConfig,
    UniformConfig,
    VbmfConfig,
    Limits,
    Objective,
    Recovery,
]


def test_half_a_point_of_a_counted_metric_is_half_a_percent_of_the_samples():
    for metric in COUNTED:
        assert Budget(max_loss=0.5, unit="points", metric=metric).allowed(0.9) == 0.005


def test_points_of_a_real_number_are_the_number_itself():
    assert Budget(max_loss=0.5, unit="points", metric="loss").allowed(2.0) == 0.5


def test_relative_percent_is_a_share_of_the_dense_value():
    for metric, dense in [("top1", 0.8), ("loss", 2.0)]:
        budget = Budget(max_loss=5, unit="relative_percent", metric=metric)
        assert budget.allowed(dense) == pytest.approx(0.05 * dense)


def test_a_loss_is_shown_in_points_where_counted():
    assert Budget(max_loss=1, unit="points").shown(0.004) == pytest.approx(0.4)
    assert Budget(max_loss=1, unit="points", metric="mse").shown(0.004) == 0.004


@pytest.mark.parametrize("max_loss", [-0.1, 101, float("nan"), float("inf")])
def test_a_budget_that_cannot_be_meant_is_refused(max_loss):
    with pytest.raises(ConfigError, match=f"max_loss {max_loss} came.*top1 you can afford"):
        Budget(max_loss=max_loss, unit="points")


@pytest.mark.parametrize("metric", UNLABELLED)
def test_a_share_of_what_dense_has_by_definition_is_refused(metric):
    with pytest.raises(ConfigError, match="in points"):
        Budget(max_loss=1, unit="relative_percent", metric=metric)


def test_what_is_minimised_is_a_mean_of_shares_of_which_dense_has_1():
    assert Objective().minimised == LATENCY == Weights(latency=1.0)
    costs = {
        name: Objective(minimise=name).minimised.cost(0.5, 0.25, 0.125)
        for name in ("latency", "macs", "parameters")
    }
    assert costs == {"latency": 0.5, "macs": 0.25, "parameters": 0.125}
    weights = Weights(latency=3.0, macs=1.0)
    assert Objective(minimise="weighted", weights=weights).minimised == weights
    assert weights.cost(0.5, 0.25, 0.125) == (3 * 0.5 + 0.25) / 4
    assert Weights(latency=0.1, macs=0.2, parameters=0.7).cost(1.0, 1.0, 1.0) == pytest.approx(1)


def test_weights_come_with_weighted_and_with_nothing_else():
    with pytest.raises(ConfigError, match="minimise weighted came without weights"):
        Objective(minimise="weighted")
    for minimise in ("latency", "macs", "parameters"):
        with pytest.raises(ConfigError, match=f"weights came with minimise {minimise}"):
            Objective(minimise=minimise, weights=Weights(macs=1.0))


@pytest.mark.parametrize(
    "values", [(0, 0, 0), (1, -0.1, 0), (float("nan"), 1, 1), (math.inf, 0, 0)]
)
def test_weights_that_weigh_nothing_are_refused(values):
    with pytest.raises(ConfigError, match="of which one at least is above 0"):
        Weights(latency=values[0], macs=values[1], parameters=values[2])


def test_weights_are_read_as_they_are_written_on_a_command_line():
    assert Weights.parsed(["latency=0.7", "macs=.3"]) == Weights(latency=0.7, macs=0.3)


@pytest.mark.parametrize(
    "texts", [["latency"], ["time=1"], ["macs=x"], ["macs=1", "macs=2"], ["=1"]]
)
def test_weights_that_are_none_are_named(texts):
    with pytest.raises(ConfigError, match=f"weight '{texts[-1]}' came"):
        Weights.parsed(texts)


@pytest.mark.parametrize("methods", [(), ("svd", "svd")])
def test_no_method_and_one_named_twice_are_refused(methods):
    with pytest.raises(ConfigError, match="one or more of"):
        SearchConfig(budget=Budget(max_loss=1, unit="points"), methods=methods)


def test_labels_of_answers_that_are_no_classes_are_refused():
    budget = Budget(max_loss=1, unit="points", metric="mse")
    with pytest.raises(ConfigError, match=r"finetune came with the metric mse.*recovery distil"):
        SearchConfig(budget=budget, recovery=Recovery(method="finetune"))
    SearchConfig(budget=budget, recovery=Recovery(method="distil"))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", Augmentation()),
        ("flip", Augmentation(flip=True)),
        ("shift=4", Augmentation(shift=4)),
        ("shift=64,flip", Augmentation(flip=True, shift=64)),
    ],
)
def test_an_augmentation_is_read_from_a_command_line(text, meant):
    assert Augmentation.parsed(text) == meant
    assert bool(meant) is (text != "")


@pytest.mark.parametrize(
    "text", ["turn", "shift", "shift=-1", "shift=65", "shift=1.5", "flip=1", ","]
)
def test_an_augmentation_that_cannot_be_read_is_refused(text):
    with pytest.raises(ConfigError, match=r"augment .* came, flip, shift=PIXELS or both"):
        Augmentation.parsed(text)


def test_pictures_that_nothing_learns_from_are_not_to_be_varied():
    with pytest.raises(
        ConfigError, match=r"augment came with recovery none.*choose recovery distil"
    ):
        Recovery(augment=Augmentation(flip=True))


def test_every_metric_is_counted_or_a_real_number_and_known_with_labels_or_without():
    assert set(COUNTED) | set(UNLABELLED) < set(get_args(Metric))


@pytest.mark.parametrize("cls", CONFIGS)
def test_every_default_is_within_its_limits(cls):
    made = cls()
    for name, hint in get_type_hints(cls, include_extras=True).items():
        for limit in getattr(hint, "__metadata__", ()):
            value = getattr(made, name)
            if isinstance(limit, annotated_types.Ge):
                assert value >= limit.ge
            elif isinstance(limit, annotated_types.Gt):
                assert value > limit.gt
            else:
                assert value <= limit.le


def test_each_strategy_is_told_by_its_own_name():
    names = [cls().strategy for cls in get_args(StrategyConfig)]
    assert len(set(names)) == len(names) == 4


@pytest.mark.parametrize("cls", [*CONFIGS, Budget, SearchConfig])
def test_a_configuration_does_not_change(cls):
    made = {
        Budget: lambda: Budget(max_loss=1, unit="points"),
        SearchConfig: lambda: SearchConfig(budget=Budget(max_loss=1, unit="points")),
    }.get(cls, cls)()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, dataclasses.fields(made)[0].name, 1)


def test_the_configuration_is_imported_without_torch_numpy_and_pydantic():
    code = (
        f"import sys, {config.__name__}; print({{'torch', 'numpy', 'pydantic'}} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
