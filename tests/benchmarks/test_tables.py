import json

from benchmarks import decompose_tables, tables
from benchmarks.metrics import metric_targets

ROW = {
    "network": "dense",
    "accuracy": 99.5,
    "accuracy_at_least": None,
    "latency_ms": {"p50_ms": 10.0, "p10_ms": 9.0, "p90_ms": 12.0, "n": 40},
    "speedup": 1.0,
    "speedup_low": 1.0,
    "speedup_high": 1.0,
    "speedup_as_it_comes": 1.0,
    "parameters": 1234567,
    "macs": 7654321,
    "evaluations": None,
    "seconds": None,
    "verdict": None,
}
RECORD = {
    "command": "make demo",
    "commit": "0123456789ab",
    "hardware": {"processor": "a processor", "cores": 2},
    "threads": 1,
    "versions": {"torch": "2.15.0"},
    "n": 40,
    "seconds": 100.0,
    "rows": [ROW],
    "targets": [
        {"name": "speedup", "target": ">= 1.5", "value": 1.2, "met": False},
        {"name": "seconds", "target": "<= 300", "value": 100.0, "met": True},
    ],
}


def test_the_pages_say_what_the_result_files_say():
    for page in tables.PAGES:
        text = page.read_text()
        assert "<!-- results: " in text
        assert tables.filled(text) == text, f"{page.name} differs: run `make results`"


def test_a_place_is_filled_and_nothing_else_is_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    (tmp_path / "demo.json").write_text(json.dumps(RECORD))
    filled = tables.filled("before\n<!-- results: demo -->\nold\n<!-- end -->\nafter\n")
    assert filled.startswith("before\n<!-- results: demo -->\n| network |")
    assert filled.endswith("<!-- end -->\nafter\n")
    assert "old" not in filled
    row = "| dense | 99.50 % |  | 10.00 (9.00 to 12.00) | 1.00x | 1.00x | 1,234,567 | 7,654,321 |"
    assert row in filled


def test_a_missed_target_is_told_and_a_met_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    (tmp_path / "demo.json").write_text(json.dumps(RECORD))
    section = tables.section("demo")
    assert "Missed: speedup was 1.2, not >= 1.5." in section
    assert "100.0, not" not in section


def test_the_record_of_decompositions_has_a_table_for_each_kind_of_row(tmp_path, monkeypatch):
    side = {"seconds": 0.1234, "error": 0.5, "term_energy": 1.5}
    rival = {"kind": "rival", "kernel": "K", "method": "cp3", "parameter_share": 0.25}
    rival |= {"ranks": [8], "ours": side, "tensorly": side | {"seconds": 1.0}, "times_faster": 8.1}
    ranks = {"kind": "all ranks", "kernel": "K", "method": "svd", "data_aware": True, "count": 4}
    ranks |= {"all": side, "one": side, "ratio": 1.0}
    seen = {"kind": "activations", "network": "N", "method": "svd", "plain": 1.0}
    rows = [rival, ranks, seen | {"data_aware": 0.5}, seen | {"data_aware": 1.5}]
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    (tmp_path / "decompose.json").write_text(json.dumps(RECORD | {"rows": rows}))
    section = tables.section("decompose")
    assert "| K | cp3 | 1/4 | 8 | 0.123 | 1 | 8.1x | 0.5000 | 0.5000 | 1.50 | 1.50 |" in section
    assert "| K | svd | data | 4 | 0.123 | 0.123 | 1.00 |" in section
    assert "| N | svd | 2 | 1 | 1.000 | 1.500 |" in section
    assert "few samples" not in section
    assert "Missed: speedup" in section


def test_the_record_of_decompositions_compares_the_parts_of_a_metric():
    row = {"network": "N", "layer": "L", "method": "svd"}
    few = row | {"kind": "few samples", "images": 8, "unshrunk": 1.0}
    rows = [
        few | {"shrunk": 0.5},
        few | {"shrunk": 0.7},
        row | {"kind": "modes", "plain": 2.0, "modes": 1.0, "whole": 0.5},
        row | {"kind": "sides", "output": 1.0, "loss": 1.1},
    ]
    columns, found = decompose_tables.tables(rows)[-1]
    assert len(columns) == len(found[0])
    assert found == [
        ("few samples: shrunk / unshrunk", "N", "svd", "2", "2", "0.600", "0.700"),
        ("modes: modes / plain", "N", "svd", "1", "1", "0.500", "0.500"),
        ("sides: loss / output", "N", "svd", "1", "0", "1.100", "1.100"),
    ]
    met = {target.name: target.met for target in metric_targets(rows)}
    assert met == {
        "few samples, median shrunk over unshrunk": True,
        "few samples, most shrunk over unshrunk": True,
        "modes, median over plain": True,
        "for the loss over for the outputs, median": False,
    }


def test_rows_of_several_commits_and_machines_are_told_as_such(tmp_path, monkeypatch):
    rows = [ROW | {"commit": commit, "processor": "P" + commit} for commit in ("aaa", "bbb", "aaa")]
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    (tmp_path / "demo.json").write_text(json.dumps(RECORD | {"rows": [ROW, *rows]}))
    section = tables.section("demo")
    assert "Paaa and Pbbb, 2 cores, 1 thread" in section
    assert "`make demo` at commits aaa, bbb." in section
