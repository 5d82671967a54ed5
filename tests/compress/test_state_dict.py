"""Weights as torch.save writes them: read by a child, refused where they may hurt."""

import argparse
import io
import os
import pickle
import sys
import zipfile

import pytest
import torch
from torch import nn

from compress import confinement, torch_archive, unpickling
from compress.errors import ArchiveError, UnsafeArchiveError, WeightsError
from compress.load import read_safetensors
from compress.state_dict import read_state_dict, stripped
from compress.torch_archive import check_torch_archive
from tests.archives import zip_of


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5))
    return network.state_dict()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights"


def written(path, content, **how):
    torch.save(content, path, **how)
    return path


def edited(path, change):
    """The archive with entries replaced, added, or left out with None."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(entries)).partition("/")[0]
    entries |= {f"{root}/{name}": content for name, content in change.items()}
    path.write_bytes(zip_of({k: v for k, v in entries.items() if v is not None}))
    return path


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.fixture
def convert(tmp_path, monkeypatch):
    """The child's work in this process, without its limits: each child takes seconds."""

    def convert(content):
        source, target = written(tmp_path / "source", content), tmp_path / "target"
        monkeypatch.setattr(unpickling, "_limit", lambda size: None)
        monkeypatch.setattr("sys.argv", ["unpickling", str(source), str(target)])
        return unpickling.main(), read_safetensors(target) if target.exists() else None

    return convert


def test_a_state_dict_is_read_by_a_child(path, state):
    assert same(read_state_dict(written(path, state)), state)


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_one_level_around_the_state_is_taken_off(convert, state, wrapper):
    optimizer = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    code, found = convert({wrapper: state, "optimizer": optimizer, "epoch": 3})
    assert code == 0
    assert same(found, state)


@pytest.mark.parametrize(
    "prefixes", ["module.", "_orig_mod.module.", "module._orig_mod.", "model."]
)
def test_prefixes_that_all_keys_share_are_taken_off(state, prefixes):
    assert same(stripped({prefixes + key: value for key, value in state.items()}), state)


def test_a_prefix_that_some_keys_have_stays():
    tensors = {"model.a": torch.ones(1), "b": torch.ones(1)}
    assert stripped(tensors).keys() == tensors.keys()


def test_parameters_views_and_shared_tensors_are_read(convert):
    base = torch.arange(12.0).reshape(3, 4)
    content = {"a": nn.Parameter(base), "b": base.T, "c": base[1:], "d": base.bfloat16()}
    _, found = convert(content)
    assert same(found, {key: value.detach() for key, value in content.items()})


class Trap:
    """A pickle of this one runs code when it is loaded."""

    def __reduce__(self):
        return os.mkdir, (os.environ["TRAP"],)


@pytest.fixture
def trap(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    return tmp_path / "sprung"


@pytest.mark.parametrize(
    "content",
    [lambda: {"a": Trap()}, lambda: {"a": torch.ones(1), "args": argparse.Namespace(lr=1)}],
    ids=["code", "a namespace"],
)
def test_a_pickle_that_names_what_lies_outside_torch_is_never_loaded(path, trap, content):
    written(path, content())
    with pytest.raises(UnsafeArchiveError, match=r"names (posix\.mkdir|argparse\.Namespace)"):
        check_torch_archive(path)
    with pytest.raises(WeightsError, match=r"state_dict\(\) alone"):
        read_state_dict(path)
    assert not trap.exists()


def test_the_child_runs_no_code_either(path, tmp_path, trap):
    """Were the look at the pickle fooled, the child would still refuse."""
    with pytest.raises(WeightsError, match=r"torch\.load refuses the file.*posix\.mkdir"):
        unpickling.to_safetensors(written(path, {"a": Trap()}), tmp_path / "out")
    assert not trap.exists()


def test_the_child_knows_no_secrets(path, tmp_path, monkeypatch, state):
    seen = {}
    run = confinement.subprocess.run

    def watched(command, *, env, **how):
        seen.update(env)
        return run(command, env=env, **how)

    monkeypatch.setenv("RANKSEARCH_TOKEN", "secret")
    monkeypatch.setattr(confinement.subprocess, "run", watched)
    unpickling.to_safetensors(written(path, state), tmp_path / "out")
    assert "PATH" in seen
    assert "RANKSEARCH_TOKEN" not in seen


def expanded():
    return {"a": torch.ones(1).expand(1 << 40)}


def shared():
    base = torch.zeros(1000)
    return {f"a{i}": base for i in range(100)}


REFUSED = {
    "no dictionary": (lambda: [torch.ones(1)], "a list came"),
    "a tensor": (lambda: torch.ones(1), "a Tensor came"),
    "nothing": (dict, "0 entries"),
    "a number": (lambda: {"epoch": 3, "lr": 0.1}, "'epoch' is a int"),
    "a name that is none": (lambda: {3: torch.ones(1)}, "3 is a Tensor"),
    "two levels": (
        lambda: {"model": {"state_dict": {"a": torch.ones(1)}}},
        "'state_dict' is a dict",
    ),
    "more values than bytes": (expanded, "more values than are stored"),
    "one storage again and again": (shared, "bomb"),
    "a sparse tensor": (lambda: {"a": torch.eye(3).to_sparse()}, "'a' is sparse"),
    "complex values": (lambda: {"a": torch.ones(1, dtype=torch.complex64)}, "'a' is sparse"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_state_dict_is_refused(convert, capsys, content, message):
    assert convert(content()) == (unpickling.REFUSED, None)
    assert message in capsys.readouterr().out


def test_a_child_that_wants_too_much_memory_is_no_harm(path, tmp_path, monkeypatch):
    (tmp_path / "greedy.py").write_text(
        "import numpy\nfrom compress import unpickling\n"
        "unpickling._limit(1000)\nnumpy.ones(1 << 30)\n"
    )
    monkeypatch.setattr(confinement.sys, "executable", _runner(tmp_path, "greedy.py"))
    with pytest.raises(WeightsError, match="more memory than its size explains"):
        unpickling.to_safetensors(written(path, {}), tmp_path / "out")


def _runner(tmp_path, script):
    """A program that runs `script` in place of the module that it is asked for."""
    runner = tmp_path / "runner"
    runner.write_text(f"#!/bin/sh\nPYTHONPATH=. exec {sys.executable} {tmp_path / script}\n")
    runner.chmod(0o755)
    return str(runner)


UNSAFE = {
    "a folder of its own": {"code/model.py": b"1"},
    "an unknown file": {"extra": b"1"},
    "no version": {"version": None},
}
MALFORMED = {
    "no pickle in it": {"data.pkl": b"nonsense"},
    "a truncated pickle": {"data.pkl": b"\x80\x02}q\x00("},
    "a pickle of another kind": {"data.pkl": pickle.dumps({"a": 1}, 4)[:-1] + b"\x93."},
}


@pytest.mark.parametrize("change", UNSAFE.values(), ids=UNSAFE)
def test_an_archive_that_torch_did_not_write_is_refused(path, state, change):
    with pytest.raises(UnsafeArchiveError):
        check_torch_archive(edited(written(path, state), change))


@pytest.mark.parametrize("change", MALFORMED.values(), ids=MALFORMED)
def test_a_damaged_pickle_is_refused(path, state, change):
    with pytest.raises(ArchiveError):
        check_torch_archive(edited(written(path, state), change))


def deflated(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return zip_of({n: archive.read(n) for n in archive.namelist()}, zipfile.ZIP_DEFLATED)


@pytest.mark.parametrize(
    "spoil",
    [
        deflated,
        lambda content: b"MZ" + content,
        lambda content: content + b"x",
        lambda content: content[:-1],
        lambda content: content[:-2] + b"\x02\x00hi",
        lambda content: content + content,
    ],
)
def test_bytes_that_two_parsers_may_read_differently_are_refused(path, state, spoil):
    content = written(path, state).read_bytes()
    path.write_bytes(spoil(content))
    with pytest.raises(ArchiveError):
        check_torch_archive(path)


def test_the_old_format_without_an_archive_is_refused(path, state):
    written(path, state, _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError):
        read_state_dict(path)


def test_a_long_pickle_is_not_taken_apart(path, state, monkeypatch):
    monkeypatch.setattr(torch_archive, "MAX_PICKLE_BYTES", 100)
    with pytest.raises(ArchiveError, match=r"data\.pkl"):
        check_torch_archive(written(path, state))


def test_scripted_networks_get_a_hint(path):
    with pytest.warns(FutureWarning):
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    with pytest.raises(UnsafeArchiveError, match="TorchScript"):
        check_torch_archive(path)


def test_a_file_of_an_old_torch_is_told_what_to_do(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match=r"before torch 1\.6"):
        read_state_dict(tmp_path / "w.pt")
