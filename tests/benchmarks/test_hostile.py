"""Files changed by chance: each is refused or read, and none goes unnoticed."""

import json
import sys
from collections import Counter
from mmap import PAGESIZE, mmap

import pytest

from benchmarks import hostile
from benchmarks.forgeries import reading
from benchmarks.forgeries.dice import Dice
from benchmarks.forgeries.forgery import SHARES, WAYS, Forgery, forge
from benchmarks.forgeries.originals import originals
from compress import confinement

FILES = 300


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return originals(tmp_path_factory.mktemp("originals"))


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "executed"


def test_originals_are_read(given, tmp_path):
    for original in given:
        path = tmp_path / "file"
        path.write_bytes(original.content)
        found = reading.outcome(original.form, path)
        assert (original.name, found.kind) == (original.name, "read"), found.detail


@pytest.mark.parametrize("part", range(4))
def test_forged_files_are_refused_or_harmless(given, tmp_path, marker, part):
    for number in range(part, FILES, 4):
        forgery = forge(given, 7, number, marker)
        (tmp_path / "file").write_bytes(forgery.content)
        found = reading.outcome(forgery.form, tmp_path / "file")
        assert found.kind in ("read", "refused", "limit"), (number, forgery.way, found.detail)
        assert found.memory_bytes < reading.MEMORY_BYTES
        assert not marker.exists(), (number, forgery.way)


def test_a_number_is_always_the_same_file(given, marker):
    one, again, other = (forge(given, seed, 5, marker) for seed in (1, 1, 2))
    assert one == again != other


def test_every_change_changes(given, marker):
    """Most of the time: chance may put in what was there."""
    for form, groups in WAYS.items():
        original = next(one for one in given if one.form == form)
        for name, way in (groups[0] | groups[1]).items():
            made = {way(original.content, Dice.of(f"{n}", marker)) for n in range(6)}
            assert len(made - {original.content}) > 2, name


def test_each_form_comes_and_each_original(given, marker):
    found = [forge(given, 0, number, marker) for number in range(200)]
    assert {one.form for one in found} == SHARES.keys()
    assert len({(one.original, one.form) for one in found}) == len(given)
    assert Counter(one.form for one in found).most_common(1)[0][0] == "program"


def test_the_code_in_the_files_is_noticed_where_it_runs(marker):
    eval(Dice.of("", marker).code)
    assert marker.exists()


def raising(error):
    def entry(_):
        raise error

    return entry


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (KeyError("name"), "foreign"),
        (RuntimeError("shape"), "foreign"),
        (RecursionError(), "foreign"),
        (MemoryError(), "limit"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "limit"),
        (reading.CompressError("so"), "refused"),
        (reading.ProblemError("malformed-file", "so"), "refused"),
    ],
    ids=repr,
)
def test_what_an_entry_raises_is_told_apart(monkeypatch, tmp_path, error, kind):
    entries = {"program": (lambda _: None, raising(error))}
    monkeypatch.setattr(reading, "ENTRIES", entries)
    found = reading.outcome("program", tmp_path)
    assert found.kind == kind
    assert found.detail


def test_a_process_that_an_entry_starts_is_noticed(monkeypatch, tmp_path):
    entries = {"program": (lambda _: reading._watch("os.system", ("true",)), lambda _: None)}
    monkeypatch.setattr(reading, "ENTRIES", entries)
    assert reading.outcome("program", tmp_path).kind == "executed"


def test_memory_is_what_a_file_took_beyond_the_rest(monkeypatch, tmp_path):
    taken = 100 << 20

    def read(_path):
        pages = mmap(-1, taken)  # of bytes the C library may still have pages from before
        pages[::PAGESIZE] = bytes(taken // PAGESIZE)

    monkeypatch.setattr(reading, "ENTRIES", {"program": (read,)})
    assert taken * 0.9 < reading.outcome("program", tmp_path).memory_bytes < taken * 1.5


STAND_IN = """
import json, os, signal, sys
for line in sys.stdin:
    form = json.loads(line)["form"]
    with open(json.loads(line)["path"]) as file:
        dies, alone = file.read().split()
    if form == "read_program":
        if alone == "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
    elif dies != "no":
        os.kill(os.getpid(), getattr(signal, dies))
    print(json.dumps({"kind": "read", "detail": "", "memory_bytes": 1}), flush=True)
"""


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("no lives", "read"),
        ("SIGXCPU lives", "limit"),
        ("SIGSEGV lives", "ended in its trial"),
        ("SIGSEGV dies", "ended"),
    ],
)
def test_a_process_that_ends_is_started_anew_and_told(monkeypatch, tmp_path, content, kind):
    monkeypatch.setattr(confinement, "_command", lambda *_: [sys.executable, "-c", STAND_IN])
    reader = hostile.Reader()
    try:
        for _ in range(2):
            forgery = Forgery("x", "program", "cut", content.encode())
            assert reader.read(forgery, tmp_path / "file").kind == kind
    finally:
        reader.close()


def test_a_run_is_recorded_with_what_came_of_each_change(monkeypatch, tmp_path, given):
    def read(_, forgery, path):
        kind = "foreign" if forgery.way == "cut" else "refused"
        if forgery.way == "code for loaders":
            (path.parent / "executed").touch()
        return reading.Outcome(kind, "", 3_000_000)

    monkeypatch.setattr(hostile.Reader, "read", read)
    monkeypatch.setattr(hostile, "originals", lambda _: given)
    monkeypatch.setattr(sys, "argv", ["hostile", "--files", "60", "--results", str(tmp_path)])
    hostile.main()
    record = json.loads((tmp_path / "hostile.json").read_text())
    rows = record["rows"]
    assert sum(row["files"] for row in rows) == 60
    for kind, way in (("foreign", "cut"), ("executed", "code for loaders")):
        assert {row["changed"] for row in rows if row[kind]} == {way}
        assert all(row[kind] in (0, row["files"]) for row in rows)
    met = {target["name"]: target["met"] for target in record["targets"]}
    assert met == {
        "hostile files": False,
        "hostile files, ended": True,
        "hostile files, foreign": False,
        "hostile files, executed": False,
        "MB taken": True,
    }
