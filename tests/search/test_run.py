import json
import math
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from compress.artifact import PROGRAMS
from compress.load import load
from compress.surgery import is_factorized
from search import layer_forms, run
from search import subject as subject_module
from search.analysis import analyse
from search.conditions import analysis_condition, baseline_condition, confirmation_condition
from search.config import (
    Budget,
    EstimationConfig,
    GeneticConfig,
    Limits,
    Objective,
    Recovery,
    SearchConfig,
    UniformConfig,
    VbmfConfig,
)
from search.confirmation import confirm
from search.data.arrays import Arrays
from search.evaluation import Evaluator, loss_on, plan_key
from search.evidence import evidence
from search.recovery.recovery import recover_
from search.report import markdown
from search.run import Cancelled, export, run_search, search_ranks
from search.strategy import Candidate
from search.subject import Subject
from search.table import ChoiceTable
from tests.search.subjects import SMALL_ARCHITECTURE, small, weighed_layers, weighed_race

# 150 images that served for nothing, all agreeing, bound the disagreement by 2 points.
BUDGET = Budget(max_loss=20, unit="points", metric="agreement")


@pytest.fixture(autouse=True)
def no_timing(monkeypatch):
    """Networks take as long as they have parameters."""
    monkeypatch.setattr(layer_forms, "time_layers", weighed_layers)
    monkeypatch.setattr(subject_module, "race", weighed_race)


def order(strategy=None, budget=BUDGET, limits=None, **more):
    return SearchConfig(
        budget=budget,
        objective=Objective(device="cpu"),
        search=strategy or EstimationConfig(max_evaluations=5),
        limits=limits or Limits(),
        **more,
    )


def images():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(300, 3, 8, 8, generator=generator)
    return Arrays.of_images(x, train_images=torch.randn(80, 3, 8, 8, generator=generator))


@pytest.fixture
def subject():
    return Subject.prepare(small(), images(), order(), SMALL_ARCHITECTURE)


@pytest.fixture
def table(subject):
    return analyse(subject, order(), lambda *_: None)


class Counting:
    """A clock that goes on by a second whenever it is read."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1
        return self.now


def test_the_whole_path_ends_with_a_faster_network_that_keeps_the_promise(tmp_path):
    model = small()
    result = search_ranks(model, images(), order(), SMALL_ARCHITECTURE)
    assert result.confirmation.verdict == "budget_met"
    assert result.evidence["result"]["speedup"] > 1
    assert any(is_factorized(layer) for layer in result.confirmation.model.modules())
    # Oracle: the images of the confirmation split, one after the other.
    split = result.subject.confirmation
    agreeing = sum(
        int(result.confirmation.model(x).argmax()) == int(model(x).argmax())
        for x in (split.inputs(i, i + 1) for i in range(len(split)))
    )
    loss = result.evidence["result"]["loss"]
    assert loss["value"] == pytest.approx(100 * (1 - agreeing / len(split)))
    assert loss["upper"] <= 20


def test_the_files_of_a_result_load_to_the_network_that_was_confirmed(tmp_path, subject, table):
    found = run_search(subject, table, order())
    confirmed = confirm(subject, table, order(), found.candidates)
    document = evidence(subject, table, order(), found, confirmed)
    written = export(tmp_path, subject, confirmed.model, confirmed.plan, document)
    names = {path.name for path in written}
    assert names >= {"report.md", "manifest.json", "model.safetensors", "load.py", *PROGRAMS}
    assert (tmp_path / "report.md").read_text() == markdown(document)
    x = subject.example
    assert torch.equal(load(tmp_path)(x), confirmed.model(x))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["input_shape"] == [3, 8, 8]
    assert "report.md" in manifest["files"]


def test_a_result_without_norms_is_what_was_confirmed(tmp_path):
    config = replace(order(), objective=Objective(device="cpu", fold_norms=True))
    result = search_ranks(small(), images(), config, SMALL_ARCHITECTURE)
    result.save(tmp_path)
    assert result.evidence["not_simplified"] is None
    assert len(result.confirmation.plan) > 0
    network, x = load(tmp_path), result.subject.example
    assert torch.equal(network(x), result.confirmation.model(x))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    program = torch.export.load(tmp_path / "model.pt2").module()
    with torch.no_grad():
        torch.testing.assert_close(program(x), network(x), rtol=1e-4, atol=1e-5)


def test_the_evidence_is_json_without_nan_and_knows_the_device(subject, table):
    found = run_search(subject, table, order())
    confirmed = confirm(subject, table, order(), found.candidates)
    document = evidence(subject, table, order(), found, confirmed)
    assert json.loads(json.dumps(document, allow_nan=False)) == json.loads(json.dumps(document))
    assert document["objective"]["device"] == "cpu"
    assert document["evaluations"] == len(found.candidates)
    assert document["splits"] == {"calibration": 80, "search": 120, "confirmation": 180}
    choices = {row["name"]: row["method"] for row in document["layers"]}
    plan = dict(confirmed.plan)
    assert {name for name, method in choices.items() if method} == set(plan)


@pytest.mark.parametrize(
    "strategy",
    [
        EstimationConfig(max_evaluations=6),
        GeneticConfig(population=4, generations=2, screening=2),
        UniformConfig(max_evaluations=4),
        VbmfConfig(),
    ],
    ids=lambda config: config.strategy,
)
def test_every_strategy_runs_and_resumes_from_what_was_stored(subject, table, strategy):
    recorded = []
    first = run_search(subject, table, order(strategy), record=recorded.append)
    assert [e.key for e in recorded] == [plan_key(table.plan(c.point)) for c in first.candidates]
    stored = {e.key: Candidate(e.point, e.costs) for e in recorded}

    def refuse(points):
        assert not points
        return iter(())

    again = run_search(subject, table, order(strategy), stored=stored, evaluate=refuse)
    assert again.candidates == first.candidates

    half = dict(list(stored.items())[: len(stored) // 2])
    late = []
    resumed = run_search(
        subject,
        table,
        order(strategy),
        stored=half,
        record=late.append,
        evaluate=lambda points: iter([known(recorded, table, point) for point in points]),
    )
    assert {e.key for e in late} == set(stored) - set(half)
    assert {c.point for c in resumed.candidates} == {c.point for c in first.candidates}


def known(recorded, table, point):
    return next(e for e in recorded if e.key == plan_key(table.plan(point)))


def test_each_evaluation_is_recorded_before_the_next_one_begins(subject, table):
    happened = []
    evaluator = Evaluator(subject, table, BUDGET)

    def evaluate(points):
        for point in points:
            happened.append("begin")
            yield evaluator.evaluate(point)

    run_search(
        subject,
        table,
        order(GeneticConfig(population=4, generations=1)),
        record=lambda _: happened.append("stored"),
        checkpoint=lambda: happened.append("look"),
        evaluate=evaluate,
    )
    assert len(happened) >= 9
    assert happened == ["look", "begin", "stored"] * (len(happened) // 3)


def test_answers_may_come_in_any_order(subject, table):
    config = order(GeneticConfig(population=4, generations=2))
    evaluator = Evaluator(subject, table, BUDGET)
    done = {}

    def evaluate(points):
        for point in points:
            if point not in done:
                done[point] = evaluator.evaluate(point)
        return iter([done[point] for point in points])

    straight = run_search(subject, table, config, evaluate=evaluate)
    turned = run_search(
        subject, table, config, evaluate=lambda points: reversed(list(evaluate(points)))
    )
    assert {c.point for c in turned.candidates} == {c.point for c in straight.candidates}


def test_a_strategy_is_told_each_points_own_costs_in_the_order_it_asked(
    subject, table, monkeypatch
):
    layers = len(table.layers)
    points = [(1,) * layers, (1, *[0] * (layers - 1)), (*[0] * (layers - 1), 1)]
    evaluator = Evaluator(subject, table, BUDGET)
    wanted = {point: evaluator.evaluate(point) for point in points}
    told = []

    class Asking:
        def ask(self):
            return [] if told else points

        def tell(self, candidates):
            told.extend(candidates)

    monkeypatch.setattr(run, "make_strategy", lambda config, table: Asking())
    stored = {wanted[points[1]].key: Candidate(points[1], wanted[points[1]].costs)}
    run_search(
        subject,
        table,
        order(),
        stored=stored,
        evaluate=lambda asked: iter([wanted[point] for point in reversed(asked)]),
    )
    assert told == [Candidate(point, wanted[point].costs) for point in points]
    assert len({candidate.costs for candidate in told}) == 3


def test_the_number_of_evaluations_is_limited_stored_ones_included(subject, table):
    recorded = []
    config = order(GeneticConfig(population=8, generations=3), limits=Limits(max_evaluations=5))
    found = run_search(subject, table, config, record=recorded.append)
    assert found.stopped_by == "max_evaluations"
    assert len(found.candidates) == len(recorded) == 5
    stored = {e.key: Candidate(e.point, e.costs) for e in recorded[:3]}
    again = []
    found = run_search(subject, table, config, stored=stored, record=again.append)
    assert len(again) == 2
    assert len(found.candidates) == 5


def test_time_is_limited_from_when_the_job_began(subject, table):
    config = order(EstimationConfig(max_evaluations=5), limits=Limits(max_seconds=100))
    assert run_search(subject, table, config, clock=Counting()).stopped_by is None
    late = run_search(subject, table, config, clock=Counting(), started=-97.0)
    assert late.stopped_by == "max_seconds"
    assert len(late.candidates) == 1
    none = run_search(subject, table, config, clock=Counting(), started=-100.0)
    assert none.candidates == []


def test_a_checkpoint_ends_the_search_and_what_was_recorded_stays(subject, table):
    recorded, looks = [], []

    def checkpoint():
        looks.append(1)
        if len(looks) == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        run_search(subject, table, order(), record=recorded.append, checkpoint=checkpoint)
    assert len(recorded) == 1


def test_a_table_from_an_earlier_job_gives_the_same_networks(subject, table):
    point = tuple(1 for _ in table.layers)
    fresh = Subject.prepare(small(), images(), order(), SMALL_ARCHITECTURE)
    again = ChoiceTable.from_json(table.to_json())
    one = Evaluator(subject, table, BUDGET).evaluate(point)
    other = Evaluator(fresh, again, BUDGET).evaluate(point)
    assert one.key == other.key
    for a, b in zip(
        subject.assemble(one.plan).parameters(),
        fresh.assemble(other.plan).parameters(),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_where_nothing_is_faster_the_dense_network_is_the_result(tmp_path, monkeypatch):
    monkeypatch.setattr(
        layer_forms, "time_layers", lambda layers, example, **_: dict.fromkeys(layers, 1.0)
    )
    model = small()
    result = search_ranks(model, images(), order(), SMALL_ARCHITECTURE)
    assert result.confirmation.verdict == "no_gain"
    assert result.found.candidates == []
    assert result.evidence["result"] is None
    result.save(tmp_path)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(load(tmp_path)(x), model(x))
    condition = analysis_condition(result.table)
    assert (condition.status, condition.reason) == ("false", "nothing_faster")
    assert "nothing was faster" in condition.message


def test_conditions_say_what_was_found(subject, table):
    assert "agreement 100 on 120 samples" in baseline_condition(subject).message
    assert analysis_condition(table).status == "true"
    found = run_search(subject, table, order())
    confirmed = confirm(subject, table, order(), found.candidates)
    condition = confirmation_condition(confirmed)
    assert (condition.type, condition.status) == ("BudgetFeasible", "true")
    assert condition.message == confirmed.sentence


def test_recovered_candidates_are_the_networks_that_are_confirmed_and_saved(tmp_path):
    recovery = Recovery(method="distil", max_epochs=1)
    records = []
    config = order(recovery=recovery)
    result = search_ranks(small(), images(), config, SMALL_ARCHITECTURE, record=records.append)
    document, subject = result.evidence, result.subject
    assert document["recovery"] == asdict(recovery) | {
        "samples": 72,
        "left_out": 8,
        "from_training": True,
    }
    told = document["result"]["recovery"]
    assert told == subject.recovered(result.confirmation.plan).as_json() | {
        "loss_before": told["loss_before"]
    }
    repaired = subject.repaired(result.confirmation.plan)
    loss = loss_on(subject.confirmation, repaired, BUDGET)
    assert told["loss_before"] == pytest.approx(100 * loss.value)
    by_key = {record.key: record.measured["recovery"] for record in records}
    kept = by_key[plan_key(result.confirmation.plan)]
    assert {**kept, "loss_before": None} == {**told, "loss_before": None}
    result.save(tmp_path, programs=())
    x = subject.example
    torch.testing.assert_close(load(tmp_path)(x), result.confirmation.model(x))
    assert "Every network was trained" in (tmp_path / "report.md").read_text()


def test_a_finalist_whose_weights_are_gone_is_recovered_again_and_judged_as_it_is_now():
    config = order(recovery=Recovery(method="distil", max_epochs=1))
    first, second = (
        Subject.prepare(small(), images(), config, SMALL_ARCHITECTURE) for _ in range(2)
    )
    table = analyse(first, config, lambda *_: None)
    found = run_search(first, table, config)
    told = []
    confirmed = confirm(second, table, config, found.candidates, lambda *said: told.append(said))
    assert confirmed.verdict == "budget_met"
    assert confirmed.model is second.assemble(confirmed.plan)
    assert confirmed.measured["recovery"]["method"] == "distil"
    judged = loss_on(second.confirmation, confirmed.model, BUDGET)
    assert confirmed.measured["loss"]["value"] == pytest.approx(100 * judged.value)
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] <= 1


def test_the_recovery_of_a_candidate_ends_with_the_job(monkeypatch):
    seen, limit = [], Limits(max_seconds=10_000)
    config = order(recovery=Recovery(method="distil", max_epochs=1), limits=limit)
    subject = Subject.prepare(small(), images(), config, SMALL_ARCHITECTURE)
    table = analyse(subject, config, lambda *_: None)

    def recovering(*arguments, seconds_left):
        seen.append(seconds_left)
        return recover_(*arguments)

    monkeypatch.setattr(subject_module, "recover_", recovering)
    found = run_search(subject, table, config, clock=Counting(), started=-9_000.0)
    asked = len(seen)
    assert asked >= len(found.candidates) - 1  # dense alone needs no recovery
    assert all(900 < left < 1000 for left in seen)
    assert seen == sorted(seen, reverse=True)
    again = Subject.prepare(small(), images(), config, SMALL_ARCHITECTURE)
    confirm(again, table, config, found.candidates, left=lambda: 5.0)
    assert set(seen[asked:]) == {5.0}


def test_a_failed_candidate_is_counted_and_the_search_goes_on(subject, table, monkeypatch):
    monkeypatch.setattr(type(subject), "assemble", lambda *_, **__: torch.nn.Sequential(Broken()))
    found = run_search(subject, table, order())
    assert found.candidates
    assert all(math.isnan(c.costs.loss) for c in found.candidates)
    confirmed = confirm(subject, table, order(), found.candidates)
    assert confirmed.verdict == "no_gain"
    assert evidence(subject, table, order(), found, confirmed)["failed"] == len(found.candidates)


class Broken(torch.nn.Module):
    def forward(self, x):
        return torch.full((len(x), 5), float("nan"))
