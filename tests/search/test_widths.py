import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from compress.calibration import trace
from compress.layers import inspect
from compress.load import build_sequential, load
from compress.plan import Choice, Plan
from compress.widths.narrowing import is_narrowed
from search import analysis, layer_forms
from search import subject as subject_module
from search.baseline import macs_of
from search.conditions import analysis_condition
from search.config import (
    Budget,
    ConfigError,
    EstimationConfig,
    Objective,
    Recovery,
    SearchConfig,
    UniformConfig,
    VbmfConfig,
)
from search.data.arrays import Arrays
from search.joint import JointTable, read_table
from search.recovery.recovery import Recovered
from search.report import markdown
from search.run import search_ranks
from search.subject import Subject
from search.widths import analyse_all, scaled, widths_of
from tests.search.subjects import SMALL_ARCHITECTURE, SMALL_ROWS, weighed_layers, weighed_race
from tests.search.tables import layer, row, table


@pytest.fixture(autouse=True)
def no_timing(monkeypatch):
    """Networks take as long as they have parameters."""
    monkeypatch.setattr(layer_forms, "time_layers", weighed_layers)
    monkeypatch.setattr(subject_module, "race", weighed_race)


def order(**more):
    given = {"search": EstimationConfig(max_evaluations=6), "widths": True, **more}
    budget = given.pop("budget", Budget(max_loss=20, unit="points", metric="agreement"))
    return SearchConfig(budget=budget, objective=Objective(device="cpu"), **given)


def macs(model, example):
    return macs_of(inspect(model), trace(model, example))


def images():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(300, 3, 8, 8, generator=generator)
    return Arrays.of_images(x, train_images=torch.randn(80, 3, 8, 8, generator=generator))


def network():
    """Of every two channels of the first two layers one says nearly what the other says."""
    torch.manual_seed(0)
    model = build_sequential(SMALL_ROWS)
    with torch.no_grad():
        for layer in (model.conv1, model.conv2):
            half = layer.out_channels // 2
            layer.weight[half:] = layer.weight[:half] * 1.01
    model.train()
    with torch.no_grad():
        model(torch.randn(64, 3, 8, 8))
    return model.eval()


@pytest.fixture(scope="module")
def result():
    """A search with the widths of three groups, once for all that read it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_forms, "time_layers", weighed_layers)
        patch.setattr(subject_module, "race", weighed_race)
        config = order(exclude=("conv1", "conv2", "conv3"))  # else ranks serve as well
        return search_ranks(network(), images(), config, SMALL_ARCHITECTURE)


def test_layers_that_take_longer_alone_than_the_network_are_scaled_down_together():
    made = table(layer("a", 4.0, 1000, row(0.1, 2.0, 500)), layer("b", 6.0, 1000), rest_ms=0)
    slow = replace(made, dense_latency_ms=5.0)
    assert scaled(made) == made
    assert [[r.latency_ms for r in each.choices] for each in scaled(slow).layers] == [[2, 1], [3]]
    assert scaled(slow).latency_ms((1, 0)) == pytest.approx(4)
    assert scaled(replace(made, layers=())).layers == ()


def test_widths_are_multiples_that_kernels_like():
    assert widths_of(64) == (48, 32, 24, 16, 8)
    assert widths_of(32) == (24, 16, 12, 8, 4)
    assert widths_of(8) == (4,)
    assert widths_of(4) == ()


def test_a_narrowed_network_keeps_the_promise_and_is_told_of(result):
    found = result.confirmation
    assert found.verdict == "budget_met"
    assert found.plan.widths
    assert found.measured["speedup"] > 1
    told = result.evidence["widths"]
    kept = {group["name"]: group["kept"] for group in told["groups"]}
    for name, width in found.plan.widths.items():
        assert kept[name] == width
        assert found.model.get_submodule(name).out_channels == width
    assert told["tried"] == len(result.table.tables) > 2
    assert json.loads(json.dumps(result.evidence, allow_nan=False))
    report = markdown(result.evidence)
    for group in told["groups"]:
        assert f"| {group['name']} | {group['channels']} | {group['kept']} |" in report


def test_parameters_and_macs_are_those_of_the_network(result):
    found = result.confirmation
    parameters = sum(weight.numel() for weight in found.model.parameters())
    assert found.measured["parameters"] == parameters
    assert not found.plan.choices  # else its stages would have to be counted
    assert found.measured["macs"] == macs(found.model, result.subject.example)


def test_every_table_starts_from_a_network_that_was_measured(result):
    subject = result.subject
    starts = [table.narrowed for table in result.table.tables]
    assert starts[0] is None
    for start in starts[1:]:
        narrow = subject.narrowed(start.widths).dense
        assert start.parameters == sum(weight.numel() for weight in narrow.parameters())
        assert start.macs == macs(narrow, subject.example)
        batch = torch.cat(subject.calibration)
        with torch.no_grad():
            found, wanted = (m(batch).double().log_softmax(1) for m in (narrow, subject.dense))
        divergence = (wanted.exp() * (wanted - found)).sum(1).mean()
        assert start.loss == pytest.approx(float(divergence), rel=1e-6, abs=1e-9)


def test_the_files_load_to_the_network_that_was_confirmed(result, tmp_path):
    result.save(tmp_path)
    again, x = load(tmp_path), result.subject.example
    assert torch.equal(again(x), result.confirmation.model(x))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["plan"]["widths"] == dict(result.confirmation.plan.widths)
    assert any(is_narrowed(m) for m in result.confirmation.model.modules())
    program = torch.export.load(tmp_path / "model.pt2").module()
    with torch.no_grad():
        torch.testing.assert_close(program(x), again(x), rtol=1e-4, atol=1e-5)


def test_a_table_read_back_leads_to_the_same_networks(result):
    table = read_table(result.table.to_json())
    assert table == result.table
    again = Subject.prepare(network(), images(), order(), SMALL_ARCHITECTURE)
    plan = result.confirmation.plan
    found, x = again.assemble(plan), result.subject.example
    with torch.no_grad():
        torch.testing.assert_close(found(x), result.confirmation.model(x))


def test_with_all_layers_excluded_widths_are_searched_alone():
    names = tuple(row[0] for row in SMALL_ROWS if row[1] in ("Conv2d", "Linear"))
    found = search_ranks(network(), images(), order(exclude=names), SMALL_ARCHITECTURE)
    assert not found.confirmation.plan.choices
    assert found.confirmation.plan.widths
    assert found.confirmation.verdict == "budget_met"
    assert "widths" in analysis_condition(found.table).message


def test_without_the_order_nothing_is_narrowed():
    config = order(widths=False)
    subject = Subject.prepare(network(), images(), config, SMALL_ARCHITECTURE)
    assert not isinstance(analyse_all(subject, config, lambda *_: None), JointTable)


def test_a_network_whose_narrow_answers_are_not_finite_is_not_tried(monkeypatch):
    subject = Subject.prepare(network(), images(), order(), SMALL_ARCHITECTURE)
    real = subject.narrower.network

    def broken(asked):
        made = real(asked)
        if "conv1" in asked:
            made.classify.bias = nn.Parameter(torch.full_like(made.classify.bias, math.nan))
        return made

    monkeypatch.setattr(subject.narrower, "network", broken)
    table = analyse_all(subject, order(), lambda *_: None)
    assert len(table.tables) > 1
    assert not any("conv1" in each.start.widths for each in table.tables)


def test_narrowed_networks_learn_from_the_whole_one(monkeypatch):
    taught = []

    def told(model, material, *_, **__):
        taught.append(material)
        return Recovered(
            method="distil", before=1, after=1, rate=0, epochs=0, seconds=0, cut_short=False
        )

    monkeypatch.setattr(subject_module, "recover_", told)
    config = order(recovery=Recovery(method="distil"))
    subject = Subject.prepare(network(), images(), config, SMALL_ARCHITECTURE)
    plan = Plan({"conv3": Choice("svd", (4,))}, {"conv1": 4})
    subject.assemble(plan)
    assert taught == [subject.material]
    assert subject.recovered(plan).method == "distil"
    assert subject.repaired(plan).conv1.out_channels == 4


def test_a_narrowed_layer_is_repaired_to_what_the_whole_one_puts_out():
    subject = Subject.prepare(network(), images(), order(), SMALL_ARCHITECTURE)
    plan = Plan({"conv1": Choice("svd", (3,))}, {"conv1": 4})
    reference = subject.narrowed(plan.widths)._reference_for(Plan(plan.choices))
    kept = subject.narrower.kept(plan.widths)["conv1"]
    whole = subject._reference_for(Plan(plan.choices))
    for found, wanted in zip(reference.samples["conv1"], whole.samples["conv1"], strict=True):
        assert torch.equal(found.outputs, wanted.outputs[:, kept])
    assert torch.equal(reference.answers[0], subject.dense(reference.batches[0]))


@pytest.mark.parametrize(
    "more",
    [
        {"search": UniformConfig()},
        {"search": VbmfConfig()},
        {"search": EstimationConfig(by="parameters")},
        {"importance": "output"},
    ],
)
def test_widths_need_a_search_that_knows_them_and_losses_that_can_be_added(more):
    with pytest.raises(ConfigError, match="widths came with strategy"):
        order(**more)


def test_a_table_with_widths_is_kept_apart():
    keys = {
        analysis.table_key("model", "data", replace(order(), widths=each), "cpu", {})
        for each in (True, False)
    }
    assert len(keys) == 2
