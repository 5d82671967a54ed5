import importlib.util
import json
import math
import resource
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from sqlalchemy import update
from torch import nn

from compress import artifact
from compress.errors import CompressError, ExportError
from compress.load import read_safetensors
from search import confirmation, layer_forms, subject
from search.config import Budget, Limits, Objective, Recovery
from search.evaluation import Evaluator
from search.measurement import Race, Ratio, Timing
from service.schemas import FrontPointOut
from service.store import artifacts, candidates, datasets, events, models
from service.store import lease as leases
from service.store.errors import LeaseLostError
from service.store.session import reading
from service.store.tables import CandidateRow, JobRow, JobState
from tests.workers.jobs import read
from tests.workers.tiny import House, furnish, images, order
from workers import phases
from workers.job import Stopped

WEIGHT_BYTES = 3_000_000  # of the factorised network and more; the database stays far below


def parameters(network: nn.Module) -> float:
    return float(sum(weight.numel() for weight in network.parameters()))


def race(networks, example, *, runtime, seconds=1.0, layouts=None, seed=0) -> Race:
    """Times as they would be if each parameter took a microsecond: no test hangs on a clock."""
    times = {name: parameters(network) / 1000 for name, network in networks.items()}
    shares = {name: time / times["dense"] for name, time in times.items() if name != "dense"}
    return Race(
        timings={name: Timing(time, time, time, 7) for name, time in times.items()},
        ratios={name: Ratio(share, share, share) for name, share in shares.items()},
        layouts=dict.fromkeys(networks, "contiguous"),
        runtime=runtime.name,
        rounds=7,
    )


def time_layers(layers, example, *, runtime, layout, seconds=1.0, seed=0) -> dict[str, float]:
    return {name: parameters(layer) / 1000 for name, layer in layers.items()}


def write_program(model, example, path) -> float:
    """Stands in for the export, which takes seconds and has tests of its own."""
    path.write_bytes(b"a program")
    return 0.0


@pytest.fixture
def house(sessions, tmp_path, monkeypatch) -> House:
    monkeypatch.setattr(subject, "race", race)
    monkeypatch.setattr(layer_forms, "time_layers", time_layers)
    monkeypatch.setattr(artifact, "export_program", write_program)
    monkeypatch.setattr(artifact, "_export_graph", write_program)
    return furnish(sessions, tmp_path)


@pytest.fixture
def evaluated(monkeypatch) -> list[tuple[int, ...]]:
    """The points that were evaluated, in this order."""
    points = []
    evaluate = Evaluator.evaluate

    def counting(self, point):
        points.append(point)
        return evaluate(self, point)

    monkeypatch.setattr(Evaluator, "evaluate", counting)
    return points


sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def files(house: House, job_id: str) -> dict[str, bytes]:
    with reading(house.sessions) as session:
        rows = artifacts.of_job(session, job_id)
    return {row.name: house.blobs.path(row.sha256).read_bytes() for row in rows}


def stored(house: House, job_id: str) -> list[CandidateRow]:
    with reading(house.sessions) as session:
        return candidates.all_of_job(session, job_id)


def loader(folder) -> ModuleType:
    """The load.py that came with a result."""
    spec = importlib.util.spec_from_file_location("loader_of_result", folder / "load.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def unpacked(house: House, job_id: str, folder):
    """The network in the zip of a job."""
    (folder / "result.zip").write_bytes(files(house, job_id)["result.zip"])
    with zipfile.ZipFile(folder / "result.zip") as archive:
        archive.extractall(folder / "result")
    return loader(folder / "result").load(folder / "result")


@contextmanager
def small_files(size_bytes: int) -> Iterator[None]:
    """A disk on which no file can be larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_job_tells_of_its_recoveries_and_what_they_gave(house, monkeypatch):
    monkeypatch.setattr(phases, "REPORT_SECONDS", 0.0)
    recovery = Recovery(method="distil", max_epochs=1)
    job_id = house.submit(order("conv2", "conv3", recovery=recovery))
    house.carry_out()
    with reading(house.sessions) as session:
        told = [e.payload for e in events.of_job(session, job_id) if e.type == "progress"]
    assert any(payload["message"].startswith("recovery: epoch 1, ") for payload in told)
    fractions = [payload["fraction"] for payload in told]
    assert fractions == sorted(fractions)
    for row in stored(house, job_id):
        assert row.measured["recovery"]["method"] == "distil"
        assert row.measured["recovery"]["loss_before"] is not None
    job = read(house.sessions, job_id)
    assert job.verdict == "budget_met"
    assert job.best["recovery"]["after"] <= job.best["recovery"]["before"]


def test_recoveries_end_with_their_job(house, monkeypatch):
    left = []
    assembling = phases.Subject.assemble

    def assemble(self, plan, *report, **limits):
        left.extend(
            each() for each in limits.values()
        )  # none where a network is stored that was made before
        return assembling(self, plan, *report, **limits)

    monkeypatch.setattr(phases.Subject, "assemble", assemble)
    house.submit(order("conv2", "conv3", limits=Limits(max_seconds=5000.0)))
    house.carry_out()
    assert left == sorted(left, reverse=True)
    assert 4000 < left[-1] < left[0] < 5000


def test_a_job_goes_through_its_phases_and_leaves_its_result(house, tmp_path):
    job_id = house.submit(order())
    assert house.carry_out() == job_id
    job = read(house.sessions, job_id)
    assert (job.state, job.verdict, job.reason) == (JobState.SUCCEEDED, "budget_met", None)
    with reading(house.sessions) as session:
        told = events.of_job(session, job_id)
    assert [e.payload["phase"] for e in told if e.type == "phase"] == [
        "loading",
        "baseline",
        "analysing",
        "searching",
        "confirming",
        "exporting",
    ]
    assert [e.payload["state"] for e in told if e.type == "best"][-1] == "confirmed"
    fractions = [e.payload["fraction"] for e in told if e.type == "progress"]
    assert fractions == sorted(fractions)
    assert {c["type"]: c["status"] for c in job.conditions} == {
        "BaselineMeasured": "true",
        "FasterLayersFound": "true",
        "BudgetFeasible": "true",
    }
    assert job.baseline["circumstances"]["device"] == "cpu"
    rows = {row.id: row for row in stored(house, job_id)}
    assert 1 <= len(rows) <= 2
    assert job.progress["evaluations_done"] == len(rows)
    assert job.best["candidate"] in rows
    assert job.best["speedup"] > 1
    published = files(house, job_id)
    assert set(published) == {
        "README.txt",
        "load.py",
        "manifest.json",
        "model.onnx",
        "model.pt2",
        "model.safetensors",
        "report.md",
        "result.zip",
    }
    manifest = json.loads(published["manifest.json"])
    assert manifest["plan"] == rows[job.best["candidate"]].plan
    assert list(manifest["layers"]) == ["conv2"]
    assert unpacked(house, job_id, tmp_path)(torch.zeros(2, 1, 32, 32)).shape == (2, 10)


@sqlite_only
def test_where_nothing_is_to_be_factorised_the_dense_network_comes_back(house, tmp_path):
    job_id = house.submit(order("none of them"))
    house.carry_out()
    job = read(house.sessions, job_id)
    assert (job.state, job.verdict, job.best) == (JobState.SUCCEEDED, "no_gain", None)
    feasible = next(c for c in job.conditions if c["type"] == "BudgetFeasible")
    assert feasible["reason"] == "no_gain"
    assert "dense network stays" in feasible["message"]
    returned = unpacked(house, job_id, tmp_path).state_dict()
    for name, weight in read_safetensors(tmp_path / "weights").items():
        torch.testing.assert_close(returned[name], weight, rtol=0, atol=0)


@sqlite_only
def test_where_macs_are_minimised_a_slower_network_of_fewer_is_the_best(house, monkeypatch):
    def slower(networks, example, **circumstances) -> Race:
        ratios = dict.fromkeys(networks.keys() - {"dense"}, Ratio(1.5, 1.4, 1.6))
        return replace(race(networks, example, **circumstances), ratios=ratios)

    monkeypatch.setattr(subject, "race", slower)
    job_id = house.submit(order(objective=Objective(minimise="macs")))
    house.carry_out()
    job, rows = read(house.sessions, job_id), stored(house, job_id)
    assert (job.state, job.verdict) == (JobState.SUCCEEDED, "budget_met")
    assert job.best["speedup"] == pytest.approx(1 / 1.5)
    assert job.best["cost"] == min(row.costs["mac_share"] for row in rows) < 1
    assert all(row.costs["cost"] == row.costs["mac_share"] for row in rows)
    with reading(house.sessions) as session:
        told = [e for e in events.of_job(session, job_id) if e.type == "best"]
    assert told[0].payload["state"] == "unconfirmed"  # published while the search went on
    assert job.best["candidate"] in [point.candidate for point in FrontPointOut.front(rows)]
    evidence = json.loads(files(house, job_id)["manifest.json"])["evidence"]
    assert evidence["objective"]["weights"] == {"latency": 0.0, "macs": 1.0, "parameters": 0.0}
    assert evidence["front"][-1]["cost"] == job.best["cost"]


@sqlite_only
def test_what_looked_faster_and_is_not_confirmed_is_no_longer_the_best(house, monkeypatch):
    def slower(networks, example, *, seconds=1.0, **circumstances) -> Race:
        found = race(networks, example, **circumstances)
        noisy = dict.fromkeys(networks.keys() - {"dense"}, Ratio(0.9, 0.8, 1.1))
        return replace(found, ratios=noisy) if seconds == confirmation.RACE_SECONDS else found

    monkeypatch.setattr(subject, "race", slower)
    job_id = house.submit(order())
    house.carry_out()
    job = read(house.sessions, job_id)
    assert (job.state, job.verdict, job.best) == (JobState.SUCCEEDED, "no_gain", None)
    with reading(house.sessions) as session:
        told = events.of_job(session, job_id)
    assert {e.payload["state"] for e in told if e.type == "best"} == {"unconfirmed"}
    assert json.loads(files(house, job_id)["manifest.json"])["layers"] == {}


@sqlite_only
def test_a_later_job_takes_the_table_of_an_earlier_one(house, monkeypatch):
    first, second = (house.submit(order(), name=name) for name in ("first", "second"))
    house.carry_out()
    monkeypatch.setattr(phases, "analyse_all", None)  # calling it would fail
    house.carry_out()
    one, other = (read(house.sessions, job_id) for job_id in (first, second))
    assert other.state is JobState.SUCCEEDED
    assert one.table_sha256 == other.table_sha256


@sqlite_only
def test_the_next_attempt_evaluates_nothing_that_is_stored(house, evaluated, monkeypatch):
    job_id = house.submit(order())
    publish = artifacts.publish

    def die(*_):
        raise Stopped  # after the candidate was stored, before its files were published

    monkeypatch.setattr(artifacts, "publish", die)
    with pytest.raises(Stopped):
        house.carry_out()
    assert len(stored(house, job_id)) == 1
    monkeypatch.setattr(artifacts, "publish", publish)
    with house.sessions.begin() as session:  # the lease of the dead one runs out
        session.execute(update(JobRow).values(lease_until=JobRow.created_at))
    house.carry_out()
    job = read(house.sessions, job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    assert len(evaluated) == len(set(evaluated)) == len(stored(house, job_id))
    assert [row.attempt for row in stored(house, job_id)] == [1, 2][: len(evaluated)]


@sqlite_only
def test_a_best_that_died_before_its_files_were_published_gets_them_in_the_next_attempt(
    house, monkeypatch
):
    def die(*_):
        raise Stopped

    job_id = house.submit(order())
    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "publish", die)
        with pytest.raises(Stopped):
            house.carry_out()
    assert files(house, job_id) == {}
    with house.sessions.begin() as session:
        session.execute(update(JobRow).values(lease_until=JobRow.created_at))
    monkeypatch.setattr(Evaluator, "evaluate", die)  # this attempt comes to nothing new
    with pytest.raises(Stopped):
        house.carry_out()
    [row] = stored(house, job_id)
    assert read(house.sessions, job_id).best["candidate"] == row.id
    assert json.loads(files(house, job_id)["manifest.json"])["plan"] == row.plan


@sqlite_only
def test_a_job_that_is_cancelled_in_its_search_leaves_the_best_so_far(house, tmp_path, monkeypatch):
    job_id = house.submit(order())
    record = phases.Recording.record

    def stop_after(self, evaluation):
        record(self, evaluation)
        raise Stopped

    monkeypatch.setattr(phases.Recording, "record", stop_after)
    journal = house.claim()
    with pytest.raises(Stopped):
        phases.carry_out(journal, house.settings, time.monotonic())
    journal.write(leases.finish, JobState.CANCELLED)
    job = read(house.sessions, job_id)
    [row] = stored(house, job_id)
    assert (job.best["candidate"], job.best["state"]) == (row.id, "unconfirmed")
    assert json.loads(files(house, job_id)["manifest.json"])["plan"] == row.plan
    network = unpacked(house, job_id, tmp_path)
    assert network(images()[:2].float()).isfinite().all()


@sqlite_only
@pytest.mark.parametrize(
    ("limits", "stopped_by"),
    [
        (Limits(max_evaluations=1), "max_evaluations"),
        (Limits(max_seconds=1e-9), "deadline"),
    ],
    ids=["max_evaluations", "max_seconds"],
)
def test_a_limit_ends_the_search_and_the_job_succeeds_all_the_same(
    house, evaluated, limits, stopped_by
):
    house.submit(order("conv2", "conv3"))
    house.carry_out()  # leaves the table, so that the deadline passes in the search
    evaluated.clear()
    job_id = house.submit(order("conv2", "conv3", limits=limits))
    house.carry_out()
    job = read(house.sessions, job_id)
    assert (job.state, job.stopped_by) == (JobState.SUCCEEDED, stopped_by)
    assert len(evaluated) == (1 if stopped_by == "max_evaluations" else 0)
    assert "result.zip" in files(house, job_id)


@sqlite_only
def test_a_deadline_that_passes_in_the_analysis_says_what_to_do(house):
    job_id = house.submit(order(limits=Limits(max_seconds=1e-9)))
    house.carry_out()
    job = read(house.sessions, job_id)
    assert (job.state, job.reason["code"]) == (JobState.FAILED, "timeout")
    assert "allow more time" in job.reason["detail"]


@sqlite_only
def test_the_time_of_earlier_attempts_counts_towards_the_deadline(house):
    job_id = house.submit(order(limits=Limits(max_seconds=1000.0)))
    with house.sessions.begin() as session:
        session.execute(update(JobRow).values(progress={"seconds": 1001.0}))
    house.carry_out()
    assert read(house.sessions, job_id).reason["code"] == "timeout"


@sqlite_only
def test_weights_that_do_not_fit_fail_the_job_with_tensor_came_and_wanted(house, tmp_path):
    with house.sessions.begin() as session:
        row = models.get(session, house.model_id)
        other = models.add(
            session,
            name="mine",
            architecture="song_mnist",
            sha256=row.sha256,
            size_bytes=1,
            parameters=1,
        )
    job_id = house.submit(order(), model_id=other.id)
    house.carry_out()
    job = read(house.sessions, job_id)
    assert (job.state, job.reason["code"]) == (JobState.FAILED, "bad_model")
    assert not job.reason["retryable"]
    detail = job.reason["detail"]
    assert "conv1.weight has shape (64, 1, 3, 3), (32, 1, 5, 5) was wanted" in detail
    assert "mine" in detail
    assert str(tmp_path) not in detail
    assert row.sha256 not in detail


@sqlite_only
def test_data_that_are_not_what_was_wanted_fail_the_job(house):
    job_id = house.submit(order(budget=Budget(max_loss=1.0, unit="points")))
    house.carry_out()
    job = read(house.sessions, job_id)
    assert (job.state, job.reason["code"]) == (JobState.FAILED, "bad_dataset")
    assert "labels" in job.reason["detail"]


@sqlite_only
def test_a_file_that_is_not_in_this_storage_is_named(house):
    with house.sessions.begin() as session:
        lost = datasets.add(
            session, name="lost", builtin=None, sha256="0" * 64, size_bytes=1, description={}
        )
    job_id = house.submit(order(), dataset_id=lost.id)
    house.carry_out()
    job = read(house.sessions, job_id)
    assert (job.reason["code"], job.reason["retryable"]) == ("blob_missing", True)
    assert lost.id in job.reason["detail"]


def test_a_full_disk_fails_the_job_and_leaves_nothing_half_published(house):
    before = set(house.blobs.digests())
    job_id = house.submit(order())
    with small_files(WEIGHT_BYTES // 3):
        house.carry_out()
    job = read(house.sessions, job_id)
    assert (job.state, job.reason["code"]) == (JobState.FAILED, "storage_full")
    assert job.reason["retryable"]
    assert files(house, job_id) == {}
    assert list((house.settings.blobs / "tmp").iterdir()) == []
    assert set(house.blobs.digests()) - before == {job.table_sha256}


@sqlite_only
def test_a_network_that_cannot_be_exported_still_gives_its_weights(house, monkeypatch):
    def refuse(*_):
        raise ExportError("torch.export failed: a data-dependent branch", "model.pt2")

    def lack(*_):
        raise ExportError("onnx is not installed", "model.onnx")

    monkeypatch.setattr(artifact, "export_program", refuse)
    monkeypatch.setattr(artifact, "_export_graph", lack)
    job_id = house.submit(order())
    house.carry_out()
    job = read(house.sessions, job_id)
    assert job.state is JobState.SUCCEEDED
    exported = next(c for c in job.conditions if c["type"] == "ProgramExported")
    assert exported["status"] == "false"
    assert "model.pt2: torch.export failed: a data-dependent" in exported["message"]
    assert "model.onnx: onnx is not installed" in exported["message"]
    assert {"model.safetensors", "report.md"} <= set(files(house, job_id))
    assert not {"model.pt2", "model.onnx"} & set(files(house, job_id))


@sqlite_only
def test_a_job_process_that_lost_its_lease_writes_nothing_more(house):
    job_id = house.submit(order())
    journal = house.claim()
    with house.sessions.begin() as session:
        session.execute(update(JobRow).values(lease_token="another's"))
    before = read(house.sessions, job_id)
    with pytest.raises(LeaseLostError):
        phases.carry_out(journal, house.settings, time.monotonic())
    after = read(house.sessions, job_id)
    assert (after.version, after.phase) == (before.version, "loading")


@sqlite_only
def test_a_candidate_that_cannot_be_computed_is_stored_as_failed(house, monkeypatch):
    def fail(*_):
        raise CompressError("did not converge")

    monkeypatch.setattr(Evaluator, "_measure", fail)
    job_id = house.submit(order())
    house.carry_out()
    assert read(house.sessions, job_id).verdict == "no_gain"
    for row in stored(house, job_id):
        assert row.state == "failed"
        assert "did not converge" in row.reason
        assert set(row.costs.values()) == {None}
        assert math.isfinite(row.seconds)
