import json
from types import SimpleNamespace

import pytest
import torch

from benchmarks import tables
from benchmarks.case import CIFAR10, MNIST, RESNET, VGG
from benchmarks.paper import row as row_module
from benchmarks.paper.entry import (
    SETTINGS,
    TRAINED,
    VARIED,
    Entry,
    config_of,
    entries,
    pruning_budgets,
)
from benchmarks.paper.search import searched
from benchmarks.paper.targets import targets
from search import layer_forms
from search import subject as subject_module
from search.config import EstimationConfig
from search.data.arrays import Arrays
from search.strategies import make_strategy
from tests.benchmarks.test_tables import RECORD
from tests.search.subjects import small, weighed_layers, weighed_race

CASES = (MNIST, CIFAR10, RESNET, VGG)


def a_row(kind, speedup, *, drop=0.3, budget=0.35, kept=True, method="estimation"):
    told = {"speedup": speedup, "low": 0.9 * speedup, "high": 1.1 * speedup}
    return {
        "method": method,
        "kind": kind,
        "budget": budget,
        "runtime": "onnxruntime",
        "batch": 1,
        "recovery": None,
        "accuracy": 99.0,
        "samples": 6000,
        "drop": drop,
        "drop_at_most": drop + 0.1,
        "kept": kept,
        "speedups": {f"{runtime} {batch}": told for runtime, batch in SETTINGS},
        "commit": "0123456789ab",
        "processor": "a processor",
        "parameters": 1000,
        "macs": 2000,
        "evaluations": 5,
        "surrogate": {"candidates": 5, "loss": 0.9, "latency": None},
        "seconds": 12.0,
        "plan": f"a network that is {speedup:g} times as fast",
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nothing_is_asked_twice_and_the_rival_prunes_where_ours_are_trained(case):
    keys = [entry.key for entry in entries(case)]
    assert len(set(keys)) == len(keys)
    for recovery, known in ((TRAINED, True), (VARIED, case in (RESNET, VGG))):
        trained = {e.config.budget.max_loss for e in entries(case) if e.config.recovery == recovery}
        assert bool(trained) == known
        assert set(pruning_budgets(case, recovery)) == trained


def test_the_papers_searches_are_fine_tuned_and_leave_linear_layers_alone():
    for case, most in ((MNIST, 0.35), (CIFAR10, 5.13)):
        faithful = [entry for entry in entries(case) if entry.kind == "paper"]
        names = ["PE-CP", "PE-Tucker", "Gene-CP", "Gene-Tucker"]
        assert [entry.method for entry in faithful] == names
        linear = {
            name
            for name, layer in case.load().named_modules()
            if isinstance(layer, torch.nn.Linear)
        }
        for entry in faithful:
            assert entry.config.budget.max_loss == most
            assert entry.config.recovery.method == "finetune"
            assert set(entry.config.exclude) == linear


def test_a_row_that_broke_its_budget_counts_for_no_target():
    rows = [
        {"kind": "dense"},
        a_row("ours", 6.0),
        a_row("ours", 9.0, drop=0.4, kept=False),
        a_row("ours", 12.0, drop=0.8, budget=1.0),
        a_row("paper", 20.0),
        a_row("rival", 4.0, method="Torch-Pruning"),
    ]
    plain, large, beyond, loss, _, latency, _, ahead = targets(MNIST, rows)
    assert (plain.value, plain.met) == (6.0, True)
    assert (large.value, large.met) == (6.0, True)
    assert (beyond.value, beyond.met) == (6.0, False)
    assert (loss.value, loss.met) == (0.9, True)
    assert (latency.value, latency.met) == (None, False)
    assert (ahead.value, ahead.met) == (1.5, True)
    assert "Torch-Pruning at <= 0.35 points" in ahead.name


def test_a_plan_that_was_raced_twice_counts_by_its_median():
    rows = [a_row("ours", speedup) | {"plan": "the same"} for speedup in (7.0, 9.0)]
    assert targets(MNIST, rows)[0].value == 8.0


def test_candidates_of_all_untrained_searches_in_one_setting_are_ranked_together():
    near, far = [[0.1, 1.0], [0.2, 0.9]], [[0.8, 2.0], [0.9, 1.9]]
    told = [{"foretold": {"loss": pairs, "latency": []}} for pairs in (near, far)]
    trained = told[0] | {"recovery": {"method": "finetune"}}
    rows = [a_row("ours", 6.0) | each for each in (*told, trained, told[0] | {"runtime": "eager"})]
    found = {each.name: each.value for each in targets(MNIST, rows) if "all searches" in each.name}
    assert list(found.values()) == [0.6, None]


def test_genetic_is_held_against_the_estimation_that_was_asked_the_same():
    rows = [
        {"kind": "dense", "method": "dense"},
        a_row("ours", 6.0),
        a_row("ours", 6.6, method="genetic"),
        a_row("ours", 4.0, budget=0.1),
        a_row("ours", 3.0, budget=0.1, method="genetic"),
        a_row("ours", 9.0, budget=0.5, method="genetic"),
    ]
    (faster, slower) = [each for each in targets(MNIST, rows) if "genetic" in each.name]
    assert (faster.value, faster.met) == (1.1, True)
    assert (slower.value, slower.met) == (0.75, False)
    assert not [
        t
        for t in targets(MNIST, [rows[1] | {"processor": "another"}, rows[2]])
        if "genetic" in t.name
    ]
    assert "in onnxruntime 1 at <= 0.1 points" in slower.name
    rows[2]["kept"] = False
    assert next(each for each in targets(MNIST, rows) if "genetic" in each.name).value is None


def test_without_a_row_of_ours_every_target_is_missed():
    found = targets(CIFAR10, [{"kind": "dense"}, a_row("rival", 4.0) | {"surrogate": None}])
    assert len(found) == 8
    assert not any(target.met for target in found)


def test_the_table_tells_what_lost_too_much(tmp_path, monkeypatch):
    dense = {"method": "dense", "kind": "dense", "accuracy": 99.5, "parameters": 10, "macs": 20}
    augment = {"flip": False, "shift": 4}
    trained = {"recovery": {"method": "finetune", "max_seconds": 30.0, "augment": augment}}
    rows = [dense, a_row("ours", 6.0), a_row("rival", 4.0, drop=0.5, kept=False) | trained]
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    (tmp_path / "paper-mnist.json").write_text(json.dumps(RECORD | {"rows": rows}))
    section = tables.section("paper-mnist")
    assert "| dense |  |  |  | 99.50 % |  | 1.00x | 1.00x | 1.00x | 1.00x | 10 | 20 |" in section
    assert "| **estimation** | 0.35 | onnxruntime, batch 1 |  | 99.00 % | 0.30 (0.40) |" in section
    assert "6.00x (5.40 to 6.60)" in section
    assert "| 5 | 0.90, - | 12 | a processor at 0123456 |" in section
    assert "| finetune, 30 s, pictures varied | 99.00 % | 0.50 (0.60): too much |" in section


def test_an_entry_is_searched_confirmed_and_raced_in_every_setting(tmp_path, monkeypatch):
    monkeypatch.setattr(layer_forms, "time_layers", weighed_layers)
    for module in (subject_module, row_module):
        monkeypatch.setattr(module, "race", weighed_race)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(400, 3, 8, 8, generator=generator)
    network = small().eval().requires_grad_(False)
    *_, last = network.modules()
    last.bias -= network(x).mean(0)  # else all are of one class
    arrays = Arrays.of_images(x, network(x).argmax(1), train_images=x[:64] + 0.1)
    case = SimpleNamespace(load=lambda: network, arrays=lambda _root: arrays)
    strategy = EstimationConfig(max_evaluations=3)
    entry = Entry(
        method="estimation",
        kind="ours",
        config=config_of(30.0, ("eager", 1)),
        strategy=lambda table: make_strategy(strategy, table),
    )
    journal = tmp_path / "small.jsonl"
    dense, found = searched(case, entry, tmp_path, journal)
    assert dense["accuracy"] == 100
    assert found["accuracy"] == pytest.approx(100 - found["drop"])
    assert found["drop"] < found["drop_at_most"]
    assert found["kept"] == (found["drop"] <= 30)
    assert found["samples"] == dense["samples"]
    assert set(found["speedups"]) == {f"{runtime} {batch}" for runtime, batch in SETTINGS}
    assert found["parameters"] < dense["parameters"]
    assert found["evaluations"] <= 3
    assert found["surrogate"]["candidates"] == found["evaluations"]
    assert len([line for line in journal.read_text().splitlines() if line]) == found["evaluations"]
    assert found["verdict"] == ("budget_met" if found["kept"] else "budget_missed")
    json.dumps([dense, found])
