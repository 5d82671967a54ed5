import json
import subprocess
from datetime import datetime, timedelta, timezone

import pytest
import torch

from benchmarks import record
from benchmarks.record import Record, Target

PARTS = {
    "command",
    "commit",
    "hardware",
    "threads",
    "versions",
    "n",
    "started_at",
    "seconds",
    "rows",
    "targets",
}


@pytest.fixture
def sample() -> Record:
    return Record(
        command="make something",
        threads=1,
        n=7,
        started_at=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone(timedelta(hours=2))),
        seconds=1.2345,
        rows=[{"network": "dense", "speedup": 1.0}],
        targets=[Target("speedup", ">=", 1.5, 1.4), Target("verdict", "==", "met", "met")],
    )


@pytest.mark.parametrize(
    ("comparison", "wanted", "value", "met"),
    [
        (">=", 1.5, 1.5, True),
        (">=", 1.5, 1.49, False),
        ("<=", 300, 300, True),
        ("<=", 300, 300.1, False),
        ("==", "budget_met", "budget_met", True),
        ("==", "budget_met", "no_gain", False),
        (">=", 1.5, None, False),
        ("==", "budget_met", None, False),
        (">=", 1.5, float("nan"), False),
    ],
)
def test_whether_a_target_is_met_is_computed(comparison, wanted, value, met):
    assert Target("a target", comparison, wanted, value).met is met


def test_words_have_no_order():
    with pytest.raises(TypeError, match="'no_gain' >= 'budget_met' came"):
        _ = Target("verdict", ">=", "budget_met", "no_gain").met


def test_a_record_has_every_part_and_missed_targets_stay(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = sample.write("something", tmp_path / "new")
    document = json.loads(path.read_text())
    assert path.name == "something.json"
    assert set(document) == PARTS
    assert document["started_at"] == "2026-01-02T01:04:05+00:00"
    assert document["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert document["targets"] == [
        {"name": "speedup", "target": ">= 1.5", "value": 1.4, "met": False},
        {"name": "verdict", "target": "== met", "value": "met", "met": True},
    ]


def test_a_record_of_a_gpu_has_a_file_of_its_own(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    path = sample.write("something", tmp_path)
    assert path.name == "something-cuda.json"
    assert json.loads(path.read_text())["hardware"]["gpu"] == "A GPU"


def test_a_record_names_the_commit_and_whether_files_differ(tmp_path, monkeypatch):
    def git(*arguments: str) -> str:
        command = ["git", "-C", tmp_path, "-c", "user.name=n", "-c", "user.email=e", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setattr(record, "ROOT", tmp_path)
    assert record.commit() is None
    git("init", "--quiet")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "--quiet", "--message", "one")
    head = git("rev-parse", "HEAD")
    assert record.commit() == head[:12]
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "demo.json").write_text("{}")
    assert record.commit() == head[:12]
    (tmp_path / "file").write_text("two")
    assert record.commit() == f"{head[:12]}+"
