import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress.equivalent import dense_weight
from compress.errors import CompressError
from compress.methods.registry import METHODS
from compress.plan import Choice, Plan
from compress.surgery import factorize_
from search import layer_forms
from search import subject as subject_module
from search.analysis import analyse, table_key
from search.config import Budget, ConfigError, Limits, Objective, SearchConfig, Weights
from search.data.arrays import Arrays
from search.factors import Factors
from search.subject import Subject
from search.table import ChoiceTable
from tests.search.subjects import small, told_race, weighed_layers

BUDGET = Budget(max_loss=5, unit="points", metric="agreement")
CONFIG = SearchConfig(budget=BUDGET, objective=Objective(device="cpu"))


@pytest.fixture(autouse=True)
def no_timing(monkeypatch):
    monkeypatch.setattr(subject_module, "race", told_race)
    monkeypatch.setattr(layer_forms, "time_layers", weighed_layers)


def prepared(model, config=CONFIG):
    images = torch.randn(200, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return Subject.prepare(model, Arrays.of_images(images), config, {})


def quiet(fraction, sentence):
    pass


def weighted(**weights):
    return Objective(device="cpu", minimise="weighted", weights=Weights(**weights))


@pytest.fixture
def subject():
    return prepared(small())


def test_rows_are_dense_first_then_by_falling_parameters_and_none_beats_another(subject):
    found = analyse(subject, CONFIG, quiet)
    assert {layer.name for layer in found.layers} >= {"conv2", "conv3"}
    for layer in found.layers:
        dense, *rows = layer.choices
        assert dense.choice is None
        assert dense.loss == 0
        assert rows
        parameters = [row.parameters for row in rows]
        assert parameters == sorted(parameters, reverse=True)
        for row in rows:
            assert row.latency_ms < 0.97 * dense.latency_ms
            assert 0 < row.loss <= 1
            others = [other for other in layer.choices if other is not row]
            assert not any(
                other.loss <= row.loss and other.latency_ms <= row.latency_ms for other in others
            )


def test_layers_of_every_kind_are_analysed_and_assembled():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, groups=2),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 3, stride=2, groups=2),
        nn.Flatten(2),
        nn.Conv1d(16, 16, 5, stride=3),
        nn.Flatten(),
        nn.Linear(880, 5),
    )
    config = replace(CONFIG, importance="output")
    subject = prepared(network, config)
    table = analyse(subject, config, quiet)
    kinds = {"2": (2, 144, 144), "4": (2, 144, 144), "6": (80, 80)}
    assert kinds.keys() <= {layer.name for layer in table.layers}
    for layer in table.layers:
        assert all(0 < row.loss <= 1 for row in layer.choices[1:])
        assert layer.dense.macs == subject.shape(layer.name).macs(
            subject.traces[layer.name].input_size
        )
    subject.factors.collect(list(kinds))
    assert {name: subject.factors.metric(name).shape for name in kinds} == kinds
    point = tuple(len(layer.choices) - 1 for layer in table.layers)
    assembled = subject.assemble(table.plan(point))
    parameters = sum(weight.numel() for weight in assembled.parameters())
    assert parameters == table.parameters(point)


def test_a_form_that_is_no_faster_than_one_that_can_do_more_is_not_decomposed(subject, monkeypatch):
    """Every form of a layer takes the same time: one of each method at most can be of use."""
    asked = []

    def even(layers, example, **settings):
        return {name: 1.0 if name == "dense" else 0.5 for name in layers}

    wanted = Factors.of

    def noting(self, name, choice):
        asked.append((name, choice.method))
        return wanted(self, name, choice)

    monkeypatch.setattr(layer_forms, "time_layers", even)
    monkeypatch.setattr(Factors, "of", noting)
    found = analyse(subject, CONFIG, quiet)
    assert {name for name, _ in asked} >= {"conv2", "conv3"}
    assert len(set(asked)) == len(asked)
    assert all(len(layer.choices) == 2 for layer in found.layers)  # the one that loses least


def slow_layers(layers, example, **settings):
    """Every form takes a thousand times the time of dense."""
    return {name: 1.0 if name == "dense" else 1000.0 for name in layers}


@pytest.mark.parametrize(
    ("objective", "cost"),
    [
        (Objective(device="cpu", minimise="macs"), lambda row: row.macs),
        (Objective(device="cpu", minimise="parameters"), lambda row: row.parameters),
    ],
    ids=["MACs", "parameters"],
)
def test_a_slower_form_is_worthwhile_where_time_is_not_minimised(monkeypatch, objective, cost):
    monkeypatch.setattr(layer_forms, "time_layers", slow_layers)
    config = replace(CONFIG, objective=objective)
    found = analyse(prepared(small(), config), config, quiet)
    assert {layer.name for layer in found.layers} >= {"conv2", "conv3"}
    assert found.weights == objective.minimised
    for layer in found.layers:
        dense, *rows = layer.choices
        assert rows
        for row in rows:
            assert row.latency_ms == 1000 * dense.latency_ms
            assert cost(row) < 0.97 * cost(dense)
            others = [other for other in layer.choices if other is not row]
            assert not any(other.loss <= row.loss and cost(other) <= cost(row) for other in others)


@pytest.mark.parametrize(
    ("objective", "sentence"),
    [
        (Objective(device="cpu"), "nothing was faster: the best form"),
        (weighted(latency=1.0), "100000 % of the dense layer's weighted cost"),
    ],
    ids=["latency", "weighted"],
)
def test_where_every_form_costs_more_the_layer_stays_dense(monkeypatch, objective, sentence):
    monkeypatch.setattr(layer_forms, "time_layers", slow_layers)
    config = replace(CONFIG, objective=objective)
    found = analyse(prepared(small(), config), config, quiet)
    assert found.layers == ()
    assert sentence in found.kept_dense["conv2"]


def test_a_form_that_saves_few_macs_for_much_time_is_no_gain_in_the_mean(monkeypatch, subject):
    """Each form has fewer MACs than the dense layer, and takes a thousand times its time."""
    monkeypatch.setattr(layer_forms, "time_layers", slow_layers)
    config = replace(CONFIG, objective=weighted(latency=1e-9, macs=1.0))
    found = analyse(subject, config, quiet)
    heavy = replace(CONFIG, objective=weighted(latency=1.0, macs=1e-6))
    assert {layer.name for layer in found.layers} >= {"conv2", "conv3"}
    assert analyse(subject, heavy, quiet).layers == ()


def test_layers_come_in_the_order_in_which_the_network_calls_them(subject):
    names = [layer.name for layer in analyse(subject, CONFIG, quiet).layers]
    assert names == sorted(names)  # conv1, conv2, conv3


def test_the_predicted_loss_is_the_error_of_the_layers_output(monkeypatch):
    """Oracle: both layers run on the calibration images."""
    monkeypatch.setattr("compress.calibration.shrunk", lambda second, count: second)
    subject = prepared(small(), replace(CONFIG, importance="output"))
    found = analyse(subject, CONFIG, quiet)
    x = torch.cat(subject.calibration)
    inputs = {}
    for name in ("conv2", "conv3"):
        subject.dense.get_submodule(name).register_forward_pre_hook(
            lambda module, args, name=name: inputs.__setitem__(name, args[0])
        )
    subject.dense(x)
    for layer in found.layers:
        if layer.name not in inputs:
            continue
        dense = subject.dense.get_submodule(layer.name)
        bias = 0 if dense.bias is None else dense.bias[:, None, None]
        wanted = dense(inputs[layer.name]) - bias
        for row in layer.choices[1:]:
            single = nn.Sequential(dense)
            moments = {"0": _Moments(subject, layer.name)}
            factorize_(single, Plan({"0": row.choice}), moments)
            error = single(inputs[layer.name]) - bias - wanted
            share = float(error.square().sum() / wanted.square().sum())
            assert row.loss == pytest.approx(share, rel=1e-3, abs=1e-6)  # float32 layers


def test_by_importance_loss_the_predicted_loss_is_that_of_the_network(subject):
    """Oracle: a change of a layer so small that the loss is quadratic."""
    subject.factors.collect(["classify"])
    layer, shape = subject.dense.classify, subject.shape("classify")
    choice = Choice("svd", (2,))
    error = subject.factors.loss("classify", choice)
    stages = METHODS["svd"].stages(shape, choice.ranks)
    found = dense_weight(shape, stages, subject.factors.of("classify", choice))
    x, weight, part = torch.cat(subject.calibration), layer.weight.clone(), 0.05
    wanted = subject.dense(x).double()
    with torch.no_grad():
        layer.weight += part * (found.float() - weight)
        rise = F.kl_div(
            subject.dense(x).double().log_softmax(1),
            wanted.log_softmax(1),
            log_target=True,
            reduction="batchmean",
        )
    # inputs and gradients are not independent, and the signs are random
    assert 0.5 * part**2 * error < rise < 2 * part**2 * error


class _Moments:
    def __init__(self, subject, name):
        subject.factors.collect([name])
        self.metric = subject.factors.metric(name)


def test_costs_are_those_of_the_stages(subject):
    found = analyse(subject, CONFIG, quiet)
    for layer in found.layers:
        shape = subject.shape(layer.name)
        for row in layer.choices[1:]:
            model = subject.assemble(Plan({layer.name: row.choice}))
            stages = model.get_submodule(layer.name)
            assert row.parameters == sum(weight.numel() for weight in stages.parameters())
            stage_shapes = METHODS[row.choice.method].stages(shape, row.choice.ranks)
            assert [s.name for s in stage_shapes] == [n for n, _ in stages.named_children()]
        assert found.parameters((0,) * len(found.layers)) == subject.baseline.parameters


def test_every_layer_is_a_row_or_has_a_reason(subject):
    found = analyse(subject, CONFIG, quiet)
    named = {layer.name for layer in found.layers} | set(found.kept_dense)
    assert named == {layer.name for layer in subject.layers}
    assert "BatchNorm2d" in found.kept_dense["norm1"]


def test_where_nothing_is_faster_every_layer_says_how_slow_the_best_form_is(subject, monkeypatch):
    def slow(layers, example, **settings):
        return {name: 1.0 if name == "dense" else 0.98 + 0.1 * i for i, name in enumerate(layers)}

    monkeypatch.setattr(layer_forms, "time_layers", slow)
    found = analyse(subject, CONFIG, quiet)
    assert found.layers == ()
    assert "nothing was faster" in found.kept_dense["conv3"]
    assert "108 % of the dense" in found.kept_dense["conv3"]


def test_excluded_layers_stay_dense_and_unknown_ones_are_refused(subject):
    found = analyse(subject, replace(CONFIG, exclude=("conv2",)), quiet)
    assert "conv2" not in {layer.name for layer in found.layers}
    assert found.kept_dense["conv2"] == "excluded by the order"
    with pytest.raises(ConfigError, match="conv9"):
        analyse(subject, replace(CONFIG, exclude=("conv9",)), quiet)


def test_a_layer_whose_weight_is_read_elsewhere_stays_dense():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 16, 3)
            self.read = nn.Linear(16, 16)

        def forward(self, x):
            return nn.functional.linear(self.conv(x).mean((2, 3)), self.read.weight)

    found = analyse(prepared(Odd()), CONFIG, quiet)
    assert found.kept_dense["read"] == "never called as a layer: its weight is read elsewhere"


def test_a_layer_that_is_called_twice_counts_twice(monkeypatch):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.wide = nn.Conv2d(3, 16, 1)
            self.again = nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x):
            return self.again(self.again(self.wide(self.conv(x)))).mean((2, 3))

    subject = prepared(Twice())
    row = next(r for r in analyse(subject, CONFIG, quiet).layers if r.name == "again")
    assert row.dense.macs == 2 * 64 * 16 * 16 * 9
    assert row.dense.latency_ms == 2 * (16 * 16 * 9 + 16)
    assert row.dense.parameters == 16 * 16 * 9 + 16
    assert subject.baseline.macs == 64 * (9 + 48) + row.dense.macs


def test_a_form_that_cannot_be_computed_is_left_out_and_the_others_stay(subject, monkeypatch):
    wanted = Factors.of

    def failing(self, name, choice):
        if name == "conv2" or choice.method == "svd":
            raise CompressError("it does not converge")
        return wanted(self, name, choice)

    monkeypatch.setattr(Factors, "of", failing)
    found = analyse(subject, CONFIG, quiet)
    assert found.kept_dense["conv2"] == "none of its faster forms could be computed"
    methods = {row.choice.method for layer in found.layers for row in layer.choices[1:]}
    assert methods
    assert "svd" not in methods


def test_only_the_methods_of_the_order_are_tried(subject):
    found = analyse(subject, replace(CONFIG, methods=("svd",)), quiet)
    methods = {row.choice.method for layer in found.layers for row in layer.choices[1:]}
    assert methods == {"svd"}


def test_progress_rises_from_0_to_1_and_says_what_is_done(subject):
    told = []
    analyse(subject, CONFIG, lambda fraction, sentence: told.append((fraction, sentence)))
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0, 1)
    assert any("timing the forms of conv3" in sentence for _, sentence in told)


def test_the_factors_of_the_table_are_kept_and_the_moments_let_go(subject):
    found = analyse(subject, CONFIG, quiet)
    for layer in found.layers:
        assert all(subject.factors.known(layer.name, row.choice) for row in layer.choices[1:])
        assert subject.factors.metric(layer.name) is None


def test_the_table_survives_json(subject):
    found = analyse(subject, CONFIG, quiet)
    assert ChoiceTable.from_json(found.to_json()) == found
    json.loads(found.to_json(), parse_constant=pytest.fail)  # no NaN


def test_the_vbmf_choice_is_the_one_nearest_to_the_rank_of_a_clean_weight():
    """A weight of rank 8 and a little noise: the analytic rank is 8 without doubt."""
    generator = torch.Generator().manual_seed(0)
    wide = nn.Conv2d(3, 64, 1)
    conv = nn.Conv2d(64, 64, 3, padding=1)
    low = torch.randn(64, 8, generator=generator) @ torch.randn(8, 576, generator=generator)
    noise = 0.01 * torch.randn(64, 576, generator=generator)
    with torch.no_grad():
        conv.weight.copy_((low + noise).reshape(64, 64, 3, 3))
    model = nn.Sequential(wide, conv, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    config = replace(CONFIG, methods=("svd",))
    found = analyse(prepared(model, config), config, quiet)
    row = next(layer for layer in found.layers if layer.name == "1")
    ranks = [0, *(r.choice.ranks[0] for r in row.choices[1:])]
    assert row.vbmf is not None
    assert ranks[row.vbmf] == min(ranks[1:], key=lambda rank: abs(rank - 8))


def test_the_key_of_a_table_changes_with_all_that_it_depends_on_and_nothing_else():
    def key(model="m", dataset="d", config=CONFIG, device="cpu one", versions=None):
        return table_key(model, dataset, config, device, versions or {"torch": "2"})

    same = [
        key(),
        key(config=replace(CONFIG, budget=Budget(max_loss=1, unit="points"))),
        key(config=replace(CONFIG, methods=tuple(reversed(CONFIG.methods)))),
    ]
    others = [
        key(model="n"),
        key(dataset="e"),
        key(device="cpu two"),
        key(versions={"torch": "3"}),
        key(config=replace(CONFIG, methods=("svd",))),
        key(config=replace(CONFIG, importance="output")),
        key(config=replace(CONFIG, budget=Budget(max_loss=1, unit="points", metric="mse"))),
        key(config=replace(CONFIG, exclude=("conv1",))),
        key(config=replace(CONFIG, limits=Limits(max_memory_bytes=2**30))),
        key(config=replace(CONFIG, objective=Objective(device="cpu", batch=2))),
        key(config=replace(CONFIG, objective=Objective(device="cpu", threads=2))),
        key(config=replace(CONFIG, objective=Objective(device="cpu", minimise="macs"))),
        key(config=replace(CONFIG, objective=weighted(latency=1.0, macs=1.0))),
        key(config=replace(CONFIG, objective=weighted(latency=1.0, macs=2.0))),
    ]
    assert len(set(same)) == 1
    assert len({*same, *others}) == 1 + len(others)
