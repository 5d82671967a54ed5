"""Files that are no weights: refused by name, unopened where they might hurt, and nothing kept."""

import gzip
import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import safetensors_file
from service.intake import count_parameters
from service.problems import ProblemError
from tests.service.conftest import traces_of
from tests.service.files import npy, npz, raw_safetensors, weights, zipped

WHOLE = weights()


class Trap:
    """A pickle of this one runs code when it is loaded."""

    def __reduce__(self):
        return pytest.fail, ("the pickle was loaded",)


def header(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def with_value(value, dtype=np.float32):
    tensor = np.ones((3, 4, 5), dtype)
    tensor[1, 2, 3] = value
    return weights(fine=np.ones(7, dtype), spoiled=tensor)


def brain_floats(bits):
    """bfloat16, which numpy does not have: the upper half of a float32."""
    tensor = np.full((3, 4, 5), 0x3F80, np.uint16)
    tensor[1, 2, 3] = bits
    return raw_safetensors({"spoiled": header("BF16", (3, 4, 5), (0, 120))}, tensor.tobytes())


UNSAFE = {
    "a pickle": pickle.dumps(Trap()),
    "an old pickle": pickle.dumps(Trap(), protocol=0),
    "a zip archive": zipped({"archive/data.pkl": pickle.dumps(Trap())}),
    "an npz": npz({"images": np.zeros(3)}),
    "an npy": npy(np.zeros(3)),
    "a gzip": gzip.compress(WHOLE),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(64),
    "a form": b'--7f3a\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + WHOLE,
    "a script": b"#!/bin/sh\necho hello\n",
    "JSON": b'{"weights": [1, 2, 3]}',
    "zeros": bytes(100),
}
MALFORMED = {
    "nothing": b"",
    "eight bytes": bytes(8),
    "half a header": WHOLE[:20],
    "half the data": WHOLE[:-5],
    "more than the data": WHOLE + b"\0",
    "an oversized header": struct.pack("<Q", safetensors_file.MAX_HEADER_BYTES + 1) + b"{" * 64,
    "a header beyond the file": struct.pack("<Q", 1 << 20) + b"{}",
    "a header of all sizes": struct.pack("<Q", 2**64 - 1) + b"{}",
    "a header that is no JSON": raw_safetensors(b'{"a": '),
    "a header nested too deeply": raw_safetensors(b'{"a":' * 100_000),
    "no tensors": raw_safetensors({}),
    "metadata alone": raw_safetensors({"__metadata__": {"format": "pt"}}),
    "a name that comes twice": raw_safetensors(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        bytes(4),
    ),
    "a hole": raw_safetensors({"a": header(), "b": header(offsets=(12, 20))}, bytes(20)),
    "an overlap": raw_safetensors({"a": header(), "b": header(offsets=(4, 12))}, bytes(12)),
    "an unknown type": raw_safetensors({"a": header("Q7")}, bytes(8)),
    "a type of eight bits": raw_safetensors({"a": header("F8_E4M3", (8,))}, bytes(8)),
    "a complex type": raw_safetensors({"a": header("C64", (1,))}, bytes(8)),
    "a shape of other size": raw_safetensors({"a": header(shape=(3,))}, bytes(8)),
    "a shape that overflows": raw_safetensors({"a": header(shape=(2**62, 4))}, bytes(8)),
    "a negative shape": raw_safetensors({"a": header(shape=(-2, -1))}, bytes(8)),
    "no values": raw_safetensors({"a": header(shape=(0, 2**40), offsets=(0, 0))}),
    "an entry that is none": raw_safetensors({"a": [1, 2]}),
    "an entry without a shape": raw_safetensors({"a": {"dtype": "F32", "data_offsets": [0, 0]}}),
    "too many tensors": raw_safetensors(
        {f"t{i}": header("U8", (1,), (i, i + 1)) for i in range(10)}, bytes(10)
    ),
}
NOT_FINITE = {
    "NaN": with_value(np.nan),
    "infinity": with_value(np.inf),
    "minus infinity": with_value(-np.inf),
    "NaN in half precision": with_value(np.nan, np.float16),
    "infinity in half precision": with_value(np.inf, np.float16),
    "NaN in brain floats": brain_floats(0xFFC1),
    "infinity in brain floats": brain_floats(0x7F80),
    "NaN in double precision": with_value(np.nan, np.float64),
}


@pytest.fixture(scope="module")
def client(lasting_client):
    return lasting_client


def refused(client, content):
    before = traces_of(client)
    answer = client.post("/v1/models", params={"architecture": "digits_cnn"}, content=content)
    assert answer.status_code == 422, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert traces_of(client) == before
    return answer.json()


@pytest.mark.parametrize("content", UNSAFE.values(), ids=UNSAFE)
def test_another_kind_of_file_is_refused_unopened(client, content):
    problem = refused(client, content)
    assert problem["code"] == "unsafe-file"
    assert "not opened" in problem["detail"]


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_a_damaged_file_is_refused(client, monkeypatch, content):
    monkeypatch.setattr(safetensors_file, "MAX_TENSORS", 9)
    assert refused(client, content)["code"] == "malformed-file"


@pytest.mark.parametrize("content", NOT_FINITE.values(), ids=NOT_FINITE)
def test_a_value_that_is_no_number_is_named(client, content):
    problem = refused(client, content)
    assert problem["code"] == "not-finite"
    assert "'spoiled'" in problem["detail"]
    assert "[1, 2, 3]" in problem["detail"]


def test_the_hint_names_what_came(client):
    assert "torch.save" in refused(client, UNSAFE["a zip archive"])["detail"]
    assert "pickle" in refused(client, UNSAFE["a pickle"])["detail"]
    assert "--data-binary" in refused(client, UNSAFE["a form"])["detail"]


def test_the_largest_finite_values_pass(client):
    extremes = {
        str(np.dtype(dtype)): np.array([np.finfo(dtype).max, np.finfo(dtype).min, 5e-324, -0.0])
        .astype(dtype)
        for dtype in (np.float16, np.float32, np.float64)
    }  # fmt: skip
    for content in (weights(**extremes), brain_floats(0x7F7F), brain_floats(0xFF7F)):
        answer = client.post("/v1/models", params={"architecture": "digits_cnn"}, content=content)
        assert answer.status_code == 201, answer.text


def test_integers_of_every_bit_pattern_pass(client):
    content = weights(w=np.ones(2, np.float32), n=np.array([-1, 2**62], np.int64))
    answer = client.post("/v1/models", params={"architecture": "digits_cnn"}, content=content)
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize("place", [0, 99_999, 262_143, 262_144, 299_999])
def test_a_value_in_any_chunk_is_found(tmp_path, place):
    tensor = np.ones(300_000, np.float32)
    tensor[place] = np.nan
    path = tmp_path / "w"
    path.write_bytes(weights(a=np.ones(3, np.float16), w=tensor))
    with pytest.raises(ProblemError, match=rf"'w' .* first at \[{place}\]"):
        count_parameters(path)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("intake") / "file"


@given(where=st.integers(0, len(WHOLE) - 1), byte=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_harmless(file, where, byte):
    file.write_bytes(WHOLE[:where] + bytes([byte]) + WHOLE[where + 1 :])
    try:
        parameters = count_parameters(file)
    except ProblemError:
        return
    assert parameters in (0, 4, 36, 40)  # a name or type that differs may count otherwise


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(file, content):
    file.write_bytes(content)
    with pytest.raises(ProblemError):
        count_parameters(file)


def test_the_archives_of_this_file_are_what_they_say():
    assert zipfile.is_zipfile(io.BytesIO(UNSAFE["a zip archive"]))
    with pytest.raises(pytest.fail.Exception):
        pickle.loads(UNSAFE["a pickle"])
