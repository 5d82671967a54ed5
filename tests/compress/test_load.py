import json
import platform
import struct
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save as safetensors_bytes
from torch import nn

from compress.load import (
    DTYPES,
    FactorizedLayer,
    build_dense,
    build_layer,
    build_sequential,
    keep_freed_memory,
    load,
    read_manifest,
    read_safetensors,
    replace_,
)

PAIR = [
    ["reduce", "Linear", {"in_features": 4, "out_features": 2, "bias": False}],
    ["expand", "Linear", {"in_features": 2, "out_features": 3}],
]


@pytest.fixture
def written(tmp_path):
    """Writes a file of the format by hand: a JSON header and bytes."""

    def write(header, data=b"", length=None):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path = tmp_path / "file.safetensors"
        path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
        return path

    return write


def entry(begin, end, shape, dtype="U8"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_it_reads_what_the_safetensors_library_wrote(tmp_path, dtype):
    values = torch.randint(0, 2, (3, 5)).to(DTYPES[dtype])
    tensors = {
        "a": values,
        "scalar": values[0, 0].clone(),
        "none": values[:0].clone(),
        "b": values.T,
    }
    path = tmp_path / "file.safetensors"
    path.write_bytes(safetensors_bytes({k: v.contiguous() for k, v in tensors.items()}, {"k": "v"}))
    read = read_safetensors(path)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


def test_tensors_that_were_read_can_be_written_to_one_by_one(tmp_path):
    path = tmp_path / "file.safetensors"
    path.write_bytes(safetensors_bytes({"a": torch.zeros(2), "b": torch.zeros(2)}))
    read = read_safetensors(path)
    read["a"].add_(1)
    assert torch.equal(read["b"], torch.zeros(2))


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": entry(0, 4, [4])}, b"123", "there are 3"),
        ({"a": entry(0, 4, [4])}, b"12345", "1 bytes after the last tensor"),
        ({"a": entry(0, 2, [2]), "b": entry(1, 3, [2])}, b"123", "expected at 2"),
        ({"a": entry(0, 1, [1]), "b": entry(2, 3, [1])}, b"123", "expected at 1"),
        ({"a": entry(1, 3, [2])}, b"123", "expected at 0"),
        ({"a": entry(0, 3, [4])}, b"123", "has 3 bytes"),
        ({"a": entry(0, 4, [2], "F32")}, b"1234", "has 4 bytes"),
        ({"a": entry(0, 0, [2**40, 2**40])}, b"", "has 0 bytes"),
        ({"a": entry(2, 0, [2])}, b"12", "expected at 0"),
        ({"a": entry(0, 1, [-1])}, b"1", "-1 is no size"),
        ({"a": entry(-1, 1, [2])}, b"1", "-1 is no size"),
        ({"a": entry(0, True, [1])}, b"1", "True is no size"),
        ({"a": entry(0, 1, [1.0])}, b"1", "1.0 is no size"),
        ({"a": entry(0, 1, "1")}, b"1", "malformed header"),
        ({"a": entry(0, 1, [1], "C64")}, b"1", "C64"),
        ({"a": entry(0, 1, [1], ["U8"])}, b"1", "malformed header"),
        ({"a": {"dtype": "U8", "shape": [1]}}, b"1", "data_offsets"),
        ({"a": [0, 1]}, b"1", "malformed header"),
        ([], b"", "malformed header"),
        (b"{", b"", "malformed header"),
        (b"\xff\xfe", b"", "malformed header"),
        (b'{"a":' * 50_000, b"", "malformed header"),
    ],
)
def test_a_malformed_file_is_refused_with_a_sentence(written, header, data, message):
    with pytest.raises(ValueError, match=message):
        read_safetensors(written(header, data))


def test_one_name_for_two_tensors_is_refused(written):
    first, second = json.dumps(entry(0, 1, [1])), json.dumps(entry(1, 2, [1]))
    text = f'{{"a": {first}, "a": {second}}}'
    with pytest.raises(ValueError, match="expected at 0"):
        read_safetensors(written(text.encode(), b"12"))


@pytest.mark.parametrize("length", [100, 2**40, 2**63, 2**64 - 1])
def test_a_header_longer_than_the_file_is_refused(written, length):
    with pytest.raises(ValueError, match=f"a header of {length} bytes"):
        read_safetensors(written(b"{}", length=length))


@pytest.mark.parametrize("size", range(9))
def test_a_file_too_short_for_a_header_is_refused(tmp_path, size):
    path = tmp_path / "file.safetensors"
    path.write_bytes(b"\x01" * size)
    with pytest.raises(ValueError, match="header"):
        read_safetensors(path)


def test_a_header_over_the_cap_is_refused_before_it_is_read(written, monkeypatch):
    monkeypatch.setattr("compress.load.MAX_HEADER_BYTES", 10)
    with pytest.raises(ValueError, match="a header of 11 bytes"):
        read_safetensors(written(b" " * 9 + b"{}"))


ARCHIVE = safetensors_bytes({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2).half()})


@given(
    cut=st.integers(0, len(ARCHIVE) - 1),
    at=st.integers(0, len(ARCHIVE) - 1),
    byte=st.binary(min_size=1, max_size=1),
)
def test_damage_is_refused_or_changes_values_alone(tmp_path_factory, cut, at, byte):
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(ARCHIVE[:cut])
    with pytest.raises(ValueError, match=r"damaged\.safetensors"):
        read_safetensors(path)
    path.write_bytes(ARCHIVE[:at] + byte + ARCHIVE[at + 1 :])
    try:
        tensors = read_safetensors(path)
    except ValueError:
        return
    assert sum(tensor.nbytes for tensor in tensors.values()) == 28


def test_a_layer_is_its_stages_in_a_row_under_their_names():
    layer = build_layer(PAIR)
    values = {
        "reduce.weight": torch.randn(2, 4),
        "expand.weight": torch.randn(3, 2),
        "expand.bias": torch.randn(3),
    }
    layer.load_state_dict(values, assign=True)
    x = torch.randn(7, 4)
    expected = x @ values["reduce.weight"].T @ values["expand.weight"].T + values["expand.bias"]
    torch.testing.assert_close(layer(x), expected)


def test_what_is_no_layer_is_not_built():
    with pytest.raises(ValueError, match="layer 'x' is a 'Module'"):
        build_sequential([["x", "Module", {}]])


def test_replacing_is_all_or_nothing():
    model = nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.ReLU()))
    dense = model[0]
    for name in ("7", "1", "", "0.weight"):
        with pytest.raises(ValueError, match="no single layers"):
            replace_(model, {"0": build_layer(PAIR), name: build_layer(PAIR)})
        assert model[0] is dense
    replace_(model, {"0": build_layer(PAIR), "1.0": nn.Identity()})
    assert isinstance(model[0], FactorizedLayer)
    assert isinstance(model[1][0], nn.Identity)


@pytest.fixture
def result(tmp_path, tiny, tiny_architecture):
    """A folder with a result whose `classify` is factorised, and the network it holds."""
    rows = [
        ["reduce", "Linear", {"in_features": 16, "out_features": 2, "bias": False}],
        ["expand", "Linear", {"in_features": 2, "out_features": 5}],
    ]
    replace_(tiny, {"classify": build_sequential(rows)})
    manifest = {
        "version": 1,
        "architecture": tiny_architecture,
        "layers": {"classify": rows},
        "input_shape": [3, 8, 8],
        "files": {},
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes(tiny.state_dict()))
    return tmp_path, tiny


def test_a_result_computes_what_was_written(result):
    folder, model = result
    loaded = load(folder)
    assert not any(module.training for module in loaded.modules())
    assert isinstance(loaded.classify, FactorizedLayer)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(loaded(x), model(x))


def test_a_factory_stands_in_for_the_registry(result, tiny_architecture):
    folder, model = result
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["architecture"] = {"registry": "mine", "name": "net"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"factory=\.\.\."):
        load(folder)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(load(folder, lambda: build_dense(tiny_architecture))(x), model(x))


def test_a_tensor_missing_left_over_or_misshapen_is_named(result):
    folder, model = result
    state = model.state_dict()
    state["extra"] = torch.zeros(1)
    state["conv1.weight"] = torch.zeros(8, 3, 1, 1)
    del state["norm1.bias"]
    (folder / "model.safetensors").write_bytes(safetensors_bytes(state))
    with pytest.raises(RuntimeError, match=r"(?s)norm1\.bias.*extra.*conv1\.weight"):
        load(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[]", "no manifest"), ('{"version": 1}', "no manifest"), ("{", "Expecting")],
)
def test_what_is_no_manifest_is_refused(tmp_path, text, message):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path / "manifest.json")


def test_a_manifest_of_another_version_is_refused(result):
    folder, _ = result
    manifest = json.loads((folder / "manifest.json").read_text()) | {"version": 2}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="version 2; 1 was wanted"):
        load(folder)


@pytest.mark.parametrize("name", ["fcn_resnet50", "raft_small", "nothing"])
def test_only_classification_networks_are_asked_of_torchvision(name):
    with pytest.raises(ValueError, match=f"no classification network '{name}'"):
        build_dense({"registry": "torchvision", "name": name, "arguments": {}})


FAULTS = """
import resource, torch
from compress.load import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(1 << 22)  # 16 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

unkept, kept = faults(), keep_freed_memory()
faults()  # the heap grows to what is needed
print(unkept, int(kept), faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_kept_memory_is_not_made_anew():
    ran = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    unkept, kept, faults = map(int, ran.stdout.split())
    assert kept == 1
    assert faults < unkept / 100


@pytest.mark.parametrize("error", [OSError, TypeError, AttributeError])
def test_without_glibc_memory_is_left_to_the_system(monkeypatch, error):
    def missing(_name):
        raise error

    monkeypatch.setattr("compress.load.ctypes.CDLL", missing)
    assert keep_freed_memory() is False
