"""Datasets: arrays in a file, or built-in sets."""

import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from search.data.declaration import Declaration
from service import npz as npz_module
from service.dataset_intake import describe
from service.problems import ProblemError
from tests.service.conftest import traces_of
from tests.service.files import arrays, arrays_npz, npy, npz, raw_safetensors, weights, zipped


@pytest.fixture(scope="module")
def client(lasting_client):
    return lasting_client


@pytest.fixture
def settings(client):
    return client.app.state.settings


def offer(client, content, **query):
    return client.post("/v1/datasets", params=query, content=content)


def refused(client, content, status=422, **query):
    before = traces_of(client)
    answer = offer(client, content, **query)
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert traces_of(client) == before
    return answer.json()


def npz_of(**changed):
    """A dataset with some arrays replaced, or left out with None."""
    return npz({k: v for k, v in (arrays() | changed).items() if v is not None})


def test_an_archive_is_described(client):
    train = {"train_images": arrays(30, 3)["images"], "train_labels": np.arange(30) % 3}
    answer = offer(client, npz(arrays(25, 3, **train)), name="mine", mean="0.5,0.4,.3", std="1,2,3")
    assert answer.status_code == 201
    dataset = answer.json()
    assert (dataset["name"], dataset["builtin"]) == ("mine", None)
    assert dataset["description"] == {
        "form": "npz",
        "inputs": [{"name": "images", "shape": [3, 4, 5], "dtype": "uint8"}],
        "counts": {"images": 25, "train_images": 30},
        "classes": 3,
        "transforms": [],
        "mean": [0.5, 0.4, 0.3],
        "std": [1.0, 2.0, 3.0],
        "has_labels": True,
        "has_train": True,
    }
    assert client.get(answer.headers["Location"]).json() == dataset


@pytest.mark.parametrize("dtype", ["u1", "f2", "f4", "f8"])
@pytest.mark.parametrize(
    "write",
    [npz, lambda entries: npz(entries, compressed=True), safetensors.numpy.save],
    ids=["npz", "compressed", "safetensors"],
)
def test_every_form_and_type_is_taken(client, write, dtype):
    images = arrays()["images"].astype(dtype)
    answer = offer(client, write({"images": images}))
    assert answer.status_code == 201, answer.text
    description = answer.json()["description"]
    assert description["inputs"][0]["dtype"] == np.dtype(dtype).name
    assert (description["classes"], description["has_labels"]) == (None, False)


def test_images_without_channels_have_one(client):
    description = offer(client, npz_of(images=np.zeros((20, 6, 7), "u1"))).json()["description"]
    assert description["inputs"][0]["shape"] == [1, 6, 7]


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
def test_labels_of_every_integer_are_taken(client, dtype):
    labels = (np.arange(20) % 5).astype(dtype)
    assert offer(client, npz_of(labels=labels)).json()["description"]["classes"] == 5


def test_arrays_in_fortran_order_are_taken(client):
    images = np.asfortranarray(arrays(channels=3)["images"])
    assert offer(client, npz_of(images=images)).status_code == 201


def test_the_same_arrays_again_are_the_dataset_that_is_there(client, traces):
    content = arrays_npz()
    first, before = offer(client, content, name="one"), traces()
    again = offer(client, content, name="two")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert traces() == before


def test_the_same_arrays_scaled_otherwise_are_another_dataset(client):
    content = arrays_npz()
    first, other = offer(client, content), offer(client, content, mean="0.5", std="0.5")
    assert other.status_code == 201
    assert other.json()["id"] != first.json()["id"]


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10"])
def test_a_builtin_set_is_created_once(client, name):
    first = client.post("/v1/datasets", json={"builtin": name})
    again = client.post("/v1/datasets", json={"builtin": name})
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    dataset = first.json()
    assert (dataset["builtin"], dataset["name"], dataset["sha256"]) == (name, name, None)
    assert dataset["description"]["has_labels"]
    assert set(dataset["description"]) == set(
        offer(client, arrays_npz()).json()["description"]
    )  # one form for all


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"builtin": "imagenet"}, "/builtin"),
        ({}, "/builtin"),
        ({"builtin": "digits", "colour": "red"}, "/colour"),
        ([], ""),
    ],
    ids=str,
)
def test_a_wrong_order_of_a_builtin_set_is_refused(client, traces, body, pointer):
    before = traces()
    answer = client.post("/v1/datasets", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert traces() == before


@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b"\xff", b" " * (1 << 20) + b"{}"])
def test_a_body_that_is_no_json_is_refused(client, traces, body):
    before = traces()
    answer = client.post(
        "/v1/datasets", content=body, headers={"Content-Type": "application/json; charset=utf-8"}
    )
    assert answer.status_code in (413, 422)
    assert traces() == before


OBJECTS = np.array([[1], [2, 3]], dtype=object)


class Trap:
    """A pickle of this one runs code when it is loaded."""

    def __reduce__(self):
        return pytest.fail, ("the pickle was loaded",)


UNSAFE = {
    "objects for images": npz_of(images=OBJECTS),
    "objects for labels": npz_of(labels=np.array([Trap()] * 20, dtype=object)),
    "a structure with an object": npz_of(images=np.zeros(20, [("a", "O")])),
    "what torch.save writes": zipped({"archive/data.pkl": pickle.dumps(Trap()), "a/version": b"3"}),
    "an entry that is no array": zipped({"images.npy": npy(arrays()["images"]), "run.py": b"1"}),
    "a pickle": pickle.dumps(Trap()),
    "text": b"images,labels\n1,2\n",
}


@pytest.mark.parametrize("content", UNSAFE.values(), ids=UNSAFE)
def test_what_needs_pickle_is_refused(client, content):
    assert refused(client, content)["code"] == "unsafe-file"


def npy_with_header(header: bytes, data: bytes = b"", version=(1, 0)) -> bytes:
    length = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + length + header + data


def declared(shape, dtype="|u1", data=b"") -> bytes:
    return npy_with_header(
        f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape!r}}}\n".encode(), data
    )


def patched(content: bytes, old: bytes, new: bytes) -> bytes:
    assert content.count(old) >= 1
    return content.replace(old, new)


def duplicated() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("images.npy", npy(arrays()["images"]))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("images.npy", npy(arrays()["images"]))
    return file.getvalue()


ARCHIVE = arrays_npz()
FLAGS = ARCHIVE.index(b"PK\x01\x02") + 8
SIZE = ARCHIVE.rindex(b"PK\x05\x06") + 12
MALFORMED = {
    "nothing": b"",
    "the magic alone": b"PK\x03\x04",
    "a truncated archive": ARCHIVE[: len(ARCHIVE) // 2],
    "an archive without its end": ARCHIVE[:-1],
    "flipped data": ARCHIVE[:300] + bytes([ARCHIVE[300] ^ 255]) + ARCHIVE[301:],
    "a name that comes twice": duplicated(),
    "an encrypted entry": ARCHIVE[: FLAGS] + b"\x01" + ARCHIVE[FLAGS + 1 :],
    "another compression": zipped({"images.npy": npy(arrays()["images"])}, zipfile.ZIP_LZMA),
    "too many entries": zipped({f"a{i}.npy": npy(np.zeros(1)) for i in range(17)}),
    "a directory of gigabytes": ARCHIVE[:SIZE] + b"\xff\xff\xff\x7f" + ARCHIVE[SIZE + 4 :],
    "no header": zipped({"images.npy": bytes(200)}),
    "an empty entry": zipped({"images.npy": b""}),
    "a header of version 2": zipped({"images.npy": npy_with_header(b"{}", version=(2, 0))}),
    "a header of gigabytes": zipped({"images.npy": b"\x93NUMPY\x02\x00\xff\xff\xff\x7f"}),
    "a header that is cut off": zipped({"images.npy": b"\x93NUMPY\x01\x00\xff\xff{"}),
    "a header that is code": zipped({"images.npy": npy_with_header(b"__import__('os').abort()\n")}),
    "a header nested too deeply": zipped({"images.npy": npy_with_header(b"[" * 9000)}),
    "a header without a shape": zipped({"images.npy": npy_with_header(b"{'descr': '|u1'}\n")}),
    "a negative shape": zipped({"images.npy": declared((-1, 1, 4, -4), data=bytes(16))}),
    "fewer values than declared": zipped({"images.npy": declared((20, 1, 4, 4), data=bytes(9))}),
    "more values than declared": zipped({"images.npy": declared((1, 1, 4, 4), data=bytes(17))}),
    "a shape without end": zipped({"images.npy": declared((2**62, 2**62), data=bytes(16))}),
    "truncated safetensors": safetensors.numpy.save(arrays())[:-3],
}  # fmt: skip


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_a_damaged_file_is_refused(client, content):
    problem = refused(client, content)
    assert problem["code"] == "malformed-file", problem


def test_a_long_directory_is_not_read(client, monkeypatch):
    monkeypatch.setattr(npz_module, "MAX_DIRECTORY_BYTES", 1 << 17)
    one = zipped({"images.npy": b""})
    start, end = one.index(b"PK\x01\x02"), one.index(b"PK\x05\x06")
    directory = one[start:end] * 3000
    assert len(directory) > 1 << 17
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 9, 9, len(directory), start, 0)
    problem = refused(client, one[:start] + directory + tail)
    assert (problem["code"], "a directory of" in problem["detail"]) == ("malformed-file", True)


def test_a_bomb_is_refused_before_it_is_inflated(client, settings):
    bomb = npz({"images": np.zeros((20, 1, 1000, 1000), "u1")}, compressed=True)
    assert len(bomb) < settings.max_upload_bytes < 20_000_000
    assert refused(client, bomb, status=413)["code"] == "file-too-large"


def test_a_bomb_that_lies_about_its_size_ends_where_it_said(tmp_path):
    bomb = zipped({"images.npy": declared((20, 1, 1000, 1000), data=bytes(20_000_000))}, 8)
    with zipfile.ZipFile(io.BytesIO(bomb)) as archive:
        info = archive.getinfo("images.npy")
    small = npy(arrays()["images"])
    lie = patched(bomb, struct.pack("<I", info.file_size), struct.pack("<I", len(small)))
    path = tmp_path / "bomb"
    path.write_bytes(lie)
    with pytest.raises(ProblemError) as caught:
        describe(path, 1 << 20, Declaration())
    assert caught.value.code == "malformed-file"


COUNTED = np.arange(20)
WRONG = {
    "no images": npz({"labels": COUNTED}),
    "another name": npz_of(pictures=np.zeros(3)),
    "training images alone": npz_of(train_images=arrays()["images"]),
    "training labels alone": npz_of(train_labels=COUNTED % 3),
    "images of integers": npz_of(images=np.zeros((20, 1, 4, 4), "i4")),
    "images of booleans": npz_of(images=np.zeros((20, 1, 4, 4), "?")),
    "images of complex numbers": npz_of(images=np.zeros((20, 1, 4, 4), "c8")),
    "images of a structure": npz_of(images=np.zeros((20, 1, 4, 4), [("a", "u1"), ("b", "u1")])),
    "images of big-endian floats": npz_of(images=np.zeros((20, 1, 4, 4), ">f4")),
    "images of brain floats": raw_safetensors(
        {"images": {"dtype": "BF16", "shape": [20, 1, 4, 4], "data_offsets": [0, 640]}}, bytes(640)
    ),
    "labels of brain floats": raw_safetensors(
        {
            "images": {"dtype": "U8", "shape": [20, 1, 1, 1], "data_offsets": [0, 20]},
            "labels": {"dtype": "BF16", "shape": [20], "data_offsets": [20, 60]},
        },
        bytes(range(60)),
    ),
    "images without height": npz_of(images=np.zeros((20, 16), "u1")),
    "images of five axes": npz_of(images=np.zeros((20, 1, 2, 4, 4), "u1")),
    "a single number": npz_of(images=np.zeros((), "u1")),
    "images of no width": npz_of(images=np.zeros((20, 1, 4, 0), "u1")),
    "labels of floats": npz_of(labels=COUNTED % 3 * 1.0),
    "labels of booleans": npz_of(labels=COUNTED % 2 == 0),
    "labels of big-endian integers": npz_of(labels=(COUNTED % 3).astype(">i8")),
    "labels as vectors": npz_of(labels=np.eye(20, dtype="i8")),
    "fewer labels than images": npz_of(labels=COUNTED[:-1] % 3),
    "negative labels": npz_of(labels=COUNTED - 1),
    "labels beyond all classes": npz_of(labels=COUNTED + 10**9),
    "labels of one class": npz_of(labels=COUNTED * 0 + 1),
    "training images of another size": npz_of(
        train_images=np.zeros((20, 1, 8, 8), "u1"), train_labels=COUNTED % 3
    ),
    "training images of another type": npz_of(
        train_images=np.zeros((20, 1, 4, 5), "f4"), train_labels=COUNTED % 3
    ),
    "training labels of another count": npz_of(
        train_images=np.zeros((20, 1, 4, 5), "u1"), train_labels=COUNTED[:9] % 3
    ),
    "weights": weights(),
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_arrays_that_are_no_dataset_are_refused(client, content):
    problem = refused(client, content)
    assert problem["code"] == "invalid-dataset", problem


def test_channels_at_the_end_get_a_hint(client):
    problem = refused(client, npz_of(images=np.zeros((20, 32, 32, 3), "u1")))
    assert "transpose(0, 3, 1, 2)" in problem["detail"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["images", "train_images"])
def test_an_image_that_is_not_finite_is_refused(client, name, value):
    floats = np.zeros((20, 1, 4, 4), "f4")
    entries = {"images": floats, "train_images": floats.copy(), "train_labels": COUNTED % 3}
    entries[name][-1, 0, -1, -1] = value
    problem = refused(client, npz(entries))
    assert problem["code"] == "not-finite"
    assert problem["detail"].startswith(name + " ")


def test_too_few_samples_are_refused(client):
    assert refused(client, npz(arrays(9)))["code"] == "dataset-too-small"
    assert offer(client, npz(arrays(10))).status_code == 201


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ("0.5", None), (None, "0.5"), ("0.5,0.5", "0.5"), ("0.5", "0.5,0.5"), ("nan", "1"),
        ("inf", "1"), ("0", "0"), ("0", "-1"), ("0", "inf"),
    ],
)  # fmt: skip
def test_a_scaling_that_cannot_be_meant_is_refused(client, mean, std):
    query = {k: v for k, v in (("mean", mean), ("std", std)) if v is not None}
    assert refused(client, arrays_npz(), **query)["code"] == "invalid-dataset"


def test_a_scaling_that_is_no_number_is_refused(client):
    problem = refused(client, arrays_npz(), mean="half", std="1")
    assert (problem["code"], problem["errors"][0]["parameter"]) == ("invalid-request", "mean")


def test_a_deleted_dataset_is_gone_with_its_file(client, settings):
    dataset = offer(client, arrays_npz()).json()
    blob = settings.blobs / dataset["sha256"][:2] / dataset["sha256"]
    os.utime(blob, (0, 0))
    assert client.delete(f"/v1/datasets/{dataset['id']}").status_code == 204
    assert client.get(f"/v1/datasets/{dataset['id']}").status_code == 404
    assert not blob.exists()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("intake") / "file"


SMALL = npz(arrays(10), compressed=True)


@given(where=st.integers(0, len(SMALL) - 1), byte=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_harmless(file, where, byte):
    file.write_bytes(SMALL[:where] + bytes([byte]) + SMALL[where + 1 :])
    try:
        description = describe(file, 1 << 20, Declaration())
    except ProblemError:
        return
    assert description["counts"] == {"images": 10}


@given(channels=st.integers(1, 4), count=st.integers(10, 30), classes=st.integers(2, 9))
def test_the_description_is_what_numpy_says(file, channels, count, classes):
    entries = arrays(count, channels, labels=np.arange(count) % classes * 11)
    file.write_bytes(npz(entries))
    description = describe(file, 1 << 20, Declaration())
    assert description["counts"]["images"] == len(entries["images"])
    assert tuple(description["inputs"][0]["shape"]) == entries["images"].shape[1:]
    assert description["classes"] == len(np.unique(entries["labels"]))


def test_values_in_every_chunk_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(npz_module, "CHUNK_BYTES", 16)
    for place in range(0, 20 * 20, 7):
        images = np.zeros((20, 1, 4, 5), "f8")
        images.reshape(-1)[place] = np.nan
        path = tmp_path / "file"
        path.write_bytes(npz({"images": images}))
        with pytest.raises(ProblemError, match="NaN"):
            describe(path, 1 << 20, Declaration())
