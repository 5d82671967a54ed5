"""Weights of recurrent layers in the choice table, and in a whole job."""

import json
import math

import pytest
import torch
from torch import nn

from compress.layers import inspect
from compress.load import load
from compress.plan import Choice, Plan
from compress.recurrent import guards
from compress.recurrent.layer import Recurrent
from compress.recurrent.modes import Modes
from search import layer_forms, verification, weight_forms
from search import subject as subject_module
from search.analysis import analyse, table_key
from search.config import (
    Budget,
    ConfigError,
    EstimationConfig,
    Limits,
    Objective,
    Recovery,
    SearchConfig,
    WeightModes,
)
from search.containment import contains
from search.data.arrays import Arrays
from search.evaluation import AnswerError, Evaluator, loss_on
from search.inspection import text
from search.recovery.unchanged import unchanged
from search.run import search_ranks
from search.subject import Subject
from search.table import ChoiceTable
from tests.search.subjects import size_of, weighed_layers, weighed_race

BUDGET = Budget(max_loss=20, unit="points", metric="agreement")


class Mixed(nn.Module):
    """(N, 1, 8, 8) to (N, 4): a convolution, whose rows are the steps of an LSTM."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.lstm = nn.LSTM(32, 32, batch_first=True)
        self.classify = nn.Linear(32, 4)

    def forward(self, x):
        rows = self.conv(x).relu().permute(0, 2, 1, 3).flatten(2)
        return self.classify(self.lstm(rows)[0][:, -1])


def mixed():
    """Answers that differ from image to image; the same every time."""
    torch.manual_seed(0)
    model = Mixed()
    with torch.no_grad():
        for weight in model.lstm.parameters():
            weight.mul_(2)
        model.classify.weight *= 10
    return model.eval()


def order(*methods, **more):
    return SearchConfig(
        budget=BUDGET,
        objective=Objective(device="cpu"),
        methods=methods or ("svd", "kcp"),
        search=EstimationConfig(max_evaluations=4),
        **more,
    )


def images(count=300):
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def prepared(config=None, model=None):
    return Subject.prepare(model or mixed(), Arrays.of_images(images()), config or order(), {})


def quiet(fraction, sentence):
    pass


@pytest.fixture(autouse=True)
def no_timing(monkeypatch):
    """Networks and layers take as long as they have parameters."""
    for module in (layer_forms, weight_forms):
        monkeypatch.setattr(module, "time_layers", weighed_layers)
    monkeypatch.setattr(subject_module, "race", weighed_race)


@pytest.fixture
def subject():
    return prepared()


@pytest.fixture(scope="module")
def table():
    with pytest.MonkeyPatch.context() as patch:
        for module in (layer_forms, weight_forms):
            patch.setattr(module, "time_layers", weighed_layers)
        patch.setattr(subject_module, "race", weighed_race)
        yield analyse(prepared(), order(), quiet)


def test_each_weight_is_a_row_between_those_of_the_layers(table):
    names = [layer.name for layer in table.layers]
    assert names == ["lstm.weight_ih_l0", "lstm.weight_hh_l0"]
    assert list(table.kept_dense) == ["conv", "classify"]
    methods = {row.choice.method for layer in table.layers for row in layer.choices[1:]}
    assert methods == {"svd", "kcp"}


def test_what_the_weights_take_adds_up_to_the_layer(table):
    layer = mixed().lstm
    dense = sum(each.dense.latency_ms for each in table.layers)
    assert dense == pytest.approx(size_of(layer))
    fastest = [min(each.choices, key=lambda row: row.latency_ms) for each in table.layers]
    saved = sum(each.dense.parameters for each in table.layers) - sum(r.parameters for r in fastest)
    assert sum(row.latency_ms for row in fastest) == pytest.approx(size_of(layer) - saved)


def test_every_form_takes_some_time_though_savings_do_not_add_up(monkeypatch):
    """Whichever weight is factorised, another routine is used, which alone halves the time."""

    def routine(layers, example, **_):
        return {name: 10.0 if name == "dense" else 4.0 for name in layers}

    monkeypatch.setattr(weight_forms, "time_layers", routine)
    found = weight_forms.time_weights(prepared(), order(), "lstm", ["weight_ih_l0", "weight_hh_l0"])
    assert sum(each.dense.latency_ms for each in found.values()) == pytest.approx(10)
    rows = [row.latency_ms for each in found.values() for row in each.others]
    assert min(rows) > 0
    fastest = sum(min(row.latency_ms for row in each.others) for each in found.values())
    assert fastest == pytest.approx(4)


def test_a_weight_that_nothing_makes_faster_says_how_slow_the_layer_would_be(monkeypatch):
    def slower(layers, example, **_):
        return {name: 10.0 if name == "dense" else 15.0 for name in layers}

    monkeypatch.setattr(weight_forms, "time_layers", slower)
    found = analyse(prepared(), order("svd"), quiet)
    assert found.layers == ()
    assert "the whole layer takes 150 % of the dense layer" in found.kept_dense["lstm.weight_hh_l0"]


def test_macs_count_every_step(table):
    ih, hh = (layer.dense.macs for layer in table.layers)
    assert ih == hh == 8 * 32 * 128  # eight steps
    assert table.dense_macs == ih + hh + 8 * 8 * 4 * 9 + 32 * 4


@pytest.mark.parametrize("importance", ["loss", "output"])
def test_losses_fall_with_the_rank_and_vanish_at_full_rank(importance):
    config = order("svd", importance=importance)
    factors = prepared(config).factors
    factors.collect(["lstm.weight_hh_l0"])
    losses = [factors.loss("lstm.weight_hh_l0", Choice("svd", (r,))) for r in (4, 8, 16, 32)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > 100 * losses[-1] >= 0
    kcp = factors.loss("lstm.weight_hh_l0", Choice("kcp", (2, 4), Modes((4, 8), (8, 16))))
    assert math.isfinite(kcp)
    assert kcp > losses[-1]
    whole = factors.loss("lstm.weight_hh_l0", Choice("kronecker", (32,), Modes((4, 8), (8, 16))))
    assert whole < 1e-6 * losses[0]


@pytest.mark.parametrize("name", ["lstm.weight_ih_l0", "lstm.weight_hh_l0"])
@pytest.mark.parametrize(
    "choice",
    [Choice("svd", (8,)), Choice("svd", (20,)), Choice("kronecker", (8,), Modes((4, 8), (8, 16)))],
    ids=str,
)
def test_the_predicted_loss_is_that_of_the_network(subject, name, choice):
    """In nats, to a factor: the mean rise of the cross entropy to the dense network's answers."""
    subject.factors.collect([name])
    x = images()
    with torch.no_grad():
        before = subject.dense(x).softmax(1)
        after = subject.repaired(Plan({name: choice}))(x).log_softmax(1)
    rise = float((before * (before.log() - after)).sum(1).mean())
    assert rise / 3 < subject.factors.loss(name, choice) < 3 * rise


def test_a_network_is_assembled_with_all_weights_of_a_layer(table):
    plan = Plan({each.name: each.choices[-1].choice for each in table.layers})
    subject = prepared()
    model = subject.assemble(plan)
    assert isinstance(model.lstm, Recurrent)
    assert {name for name, _ in model.lstm.named_children()} == {"weight_ih_l0", "weight_hh_l0"}
    assert type(subject.dense.lstm) is nn.LSTM
    assert model(images(3)).isfinite().all()


def test_repair_asks_the_dense_network_once(subject):
    """Plans of recurrent weights ask for nothing that it has not been asked for."""
    subject.repaired(Plan({"classify": Choice("svd", (2,))}))
    reference = subject._reference
    subject.repaired(Plan({"lstm.weight_hh_l0": Choice("svd", (8,))}))
    subject.repaired(Plan({"lstm.weight_ih_l0": Choice("svd", (8,))}))
    assert subject._reference is reference


def test_a_table_with_modes_comes_back_from_its_json(table):
    assert ChoiceTable.from_json(table.to_json()) == table
    assert any(row.choice.modes for each in table.layers for row in each.choices[1:])


def test_the_order_gives_the_modes():
    modes = WeightModes.parsed("lstm.weight_hh_l0=2x16:4x32")
    config = order("kcp", modes=(modes,))
    found = analyse(prepared(config), config, quiet)
    used = {row.choice.modes for each in found.layers for row in each.choices[1:]}
    assert Modes((2, 16), (4, 32)) in used
    keys = {table_key("a", "b", each, "cpu", {}) for each in (config, order("kcp"))}
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lstm.weight_hh_l0=2x15:4x32", "for one of .128, 32."),
        ("lstm.weight_hh_l1=2x16:4x32", "the network has .'lstm.weight_ih_l0'"),
        ("conv=2x16:4x32", "weights of recurrent layers were wanted"),
    ],
)
def test_modes_that_do_not_fit_are_refused(text, said):
    config = order("kcp", modes=(WeightModes.parsed(text),))
    with pytest.raises(ConfigError, match=said):
        analyse(prepared(config), config, quiet)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lstm.weight_hh_l0", "WEIGHT=INPUTS:OUTPUTS was wanted"),
        ("a=2x2", "was wanted"),
        ("a=2xb:2x2", "was wanted"),
        ("a=2x2:4", "2 modes of the inputs and 1"),
        ("a=0x2:4x4", "integers above zero"),
        ("a=" + "x".join("1" * 13) + ":" + "x".join("1" * 13), "12 at most"),
    ],
)
def test_modes_that_are_none_are_refused(text, said):
    with pytest.raises(ConfigError, match=said):
        WeightModes.parsed(text)


def test_modes_of_a_weight_come_once():
    modes = WeightModes.parsed("a=2x2:4x4")
    with pytest.raises(ConfigError, match="once"):
        order(modes=(modes, modes))


def test_what_is_folded_holds_smaller_ranks_of_the_same_modes_alone():
    modes, others = Modes((4, 8), (8, 16)), Modes((2, 16), (8, 16))
    large = Choice("kcp", (4, 4), modes)
    assert contains(large, Choice("kcp", (2, 4), modes))
    assert not contains(large, Choice("kcp", (2, 8), modes))
    assert not contains(large, Choice("kcp", (2, 4), others))
    assert not contains(large, Choice("svd", (1,)))
    assert not contains(Choice("svd", (32,)), Choice("kronecker", (2,), modes))


def test_a_fit_that_needs_more_memory_than_allowed_is_left_out():
    limits = Limits(max_memory_bytes=2**24)
    subject = prepared(order(limits=limits))
    subject.factors._limit = 1000
    with pytest.raises(Exception, match=r"max_memory_bytes is 1,000"):
        subject.factors.of("lstm.weight_hh_l0", Choice("kcp", (2, 4), Modes((4, 8), (8, 16))))


def test_a_whole_job_ends_with_files_that_load(tmp_path):
    result = search_ranks(mixed(), Arrays.of_images(images()), order("svd"))
    assert result.confirmation.verdict == "budget_met"
    plan = result.confirmation.plan
    assert any(name.startswith("lstm.") for name, _ in plan)
    result.save(tmp_path, programs=())
    other = load(tmp_path, factory=Mixed)
    x = images(5)
    assert torch.equal(other(x), result.confirmation.model(x))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert verification._reloaded(manifest, other).detail.startswith("1 layer factorised")
    (row,) = [r for r in manifest["evidence"]["layers"] if r["name"] == "lstm.weight_hh_l0"]
    assert row["modes"] is None
    assert manifest["evidence"]["dense"]["macs"] == result.table.dense_macs


def test_factors_of_recurrent_weights_are_trained():
    recovery = Recovery(method="distil", max_seconds=2.0, max_epochs=1)
    arrays = Arrays(inputs={"images": images()}, train_inputs={"images": images(200)})
    subject = Subject.prepare(mixed(), arrays, order("svd", recovery=recovery), {})
    plan = Plan({"lstm.weight_hh_l0": Choice("svd", (4,))})
    repaired = subject.repaired(plan)
    recovered = subject.assemble(plan)
    told = subject.recovered(plan)
    assert told.after <= told.before
    name = "lstm.weight_hh_l0.in_factor"
    if told.after < told.before:
        assert not torch.equal(recovered.state_dict()[name], repaired.state_dict()[name])
    assert torch.equal(recovered.conv.weight, repaired.conv.weight)  # before the first change


def test_what_comes_before_the_first_factorised_weight_need_not_learn(subject):
    model = subject.repaired(Plan({"lstm.weight_hh_l0": Choice("svd", (8,))}))
    assert unchanged(model, images(1)) == {"conv.weight", "conv.bias"}


def test_answers_that_are_not_finite_name_the_layer():
    subject = prepared()
    model = subject.assemble(Plan({"lstm.weight_hh_l0": Choice("svd", (8,))}))
    with torch.no_grad():
        model.lstm.weight_hh_l0.in_factor.fill_(torch.nan)
    with pytest.raises(AnswerError, match=r"lstm puts out NaN.* first at step"):
        loss_on(subject.search, model, BUDGET)


def test_a_candidate_less_stable_than_dense_fails_by_name(table, monkeypatch):
    assert table.layers[1].name == "lstm.weight_hh_l0"
    assert Evaluator(prepared(), table, BUDGET).evaluate((0, 1)).reason is None
    monkeypatch.setattr(guards, "ALLOWED", 0.0)
    reason = Evaluator(prepared(), table, BUDGET).evaluate((0, 1)).reason
    assert reason is not None
    assert reason.startswith("UnstableError: outputs drift")
    assert reason.endswith("of lstm")


def test_inspection_names_the_methods_of_a_weight():
    lines = [*text(inspect(mixed()), 1)]
    (line,) = [line for line in lines if line.startswith("lstm.weight_hh_l0")]
    assert "LSTM weight 32 -> 128  svd kcp kronecker" in line
