"""Archives of pictures at the door: described by their headers, or refused with the file's name."""

import json
import stat
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from search.data import archive as archive_module
from search.data import tar_archive, zip_archive
from search.data.declaration import Declaration
from service.dataset_intake import describe
from service.problems import ProblemError
from tests.archives import (
    encoded,
    folders,
    jpeg_of,
    picture,
    png_of,
    shard,
    tar_of,
    tar_with,
    zip_of,
    zip_with,
)
from tests.service.conftest import traces_of

WRITERS = {
    "zip": zip_of,
    "deflated": lambda entries: zip_of(entries, zipfile.ZIP_DEFLATED),
    "tar": tar_of,
    "tar of gnu": lambda entries: tar_of(entries, tarfile.GNU_FORMAT),
    "ustar": lambda entries: tar_of(entries, tarfile.USTAR_FORMAT),
}


@pytest.fixture(scope="module")
def client(lasting_client):
    return lasting_client


def offer(client, content, **query):
    return client.post("/v1/datasets", params=query, content=content)


def described(client, content, **query):
    answer = offer(client, content, **query)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()["description"]


def refused(client, content, **query):
    before = traces_of(client)
    answer = offer(client, content, **query)
    assert answer.status_code in (413, 422), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert traces_of(client) == before
    return answer.json()


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_folder_for_each_class_is_described(client, write):
    found = described(client, write(folders(12)))
    assert found["form"] == ("zip" if write(folders(1)).startswith(b"PK") else "tar")
    assert found["inputs"] == [{"name": "images", "shape": [3, 6, 5], "dtype": "uint8"}]
    assert (found["counts"], found["classes"]) == ({"images": 12}, 2)
    assert (found["has_labels"], found["has_train"]) == (True, False)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_shard_is_described(client, write):
    found = described(client, write({**shard(12, 3), "00000.json": b"{}"}))
    assert (found["counts"], found["classes"]) == ({"images": 12}, 3)


@pytest.mark.parametrize("held_out", ["val", "test", "validation"])
def test_training_pictures_stand_beside_the_others(client, held_out):
    entries = folders(20, prefix="set/train/") | folders(12, prefix=f"set/{held_out}/")
    found = described(client, zip_of(entries))
    assert found["counts"] == {"images": 12, "train_images": 20}
    assert found["has_train"]


def test_pictures_without_folders_have_no_labels(client):
    found = described(
        client, zip_of({f"shots/{n}.jpg": picture(n, form="JPEG") for n in range(10)})
    )
    assert (found["classes"], found["has_labels"]) == (None, False)


def test_what_file_managers_leave_is_passed_over(client):
    clutter = {".DS_Store": b"x", "__MACOSX/cat/._1.png": b"x", "dog/Thumbs.db": b"x", "cat/": b""}
    assert described(client, zip_of(folders(12) | clutter))["counts"] == {"images": 12}


def test_pictures_of_many_sizes_become_one_shape_by_their_transforms(client):
    entries = {f"{n}.png": picture(n, (40 + n, 60 - n)) for n in range(12)}
    content = zip_of(entries)
    problem = refused(client, content)
    assert problem["code"] == "invalid-dataset"
    assert "'0.png'" in problem["detail"]
    assert "'1.png'" in problem["detail"]
    transforms = [{"resize": 32}, {"center_crop": 28}, {"channels": 1}]
    found = described(client, content, transforms=json.dumps(transforms), mean="0.5", std="0.2")
    assert found["inputs"][0]["shape"] == [1, 28, 28]
    assert found["transforms"] == [{"resize": 32}, {"center_crop": [28, 28]}, {"channels": 1}]


def test_the_mean_has_a_value_for_each_channel_after_the_transforms(client):
    problem = refused(client, zip_of(folders()), mean="0.5", std="0.2")
    assert (problem["code"], "3 numbers" in problem["detail"]) == ("invalid-dataset", True)


def png_in_mode(mode):
    return encoded(Image.fromarray(np.zeros((6, 5), "u1")).convert(mode))


KINDS = {
    "grey": png_in_mode("L"),
    "grey with alpha": png_in_mode("LA"),
    "palette": png_in_mode("P"),
    "one bit": png_in_mode("1"),
    "alpha": png_in_mode("RGBA"),
    "sixteen bits": encoded(Image.fromarray(np.full((6, 5), 40_000, np.uint16))),
    "CMYK": encoded(Image.new("CMYK", (5, 6)), "JPEG"),
    "progressive": encoded(Image.new("RGB", (5, 6)), "JPEG", progressive=True),
    "a long profile": encoded(Image.new("RGB", (5, 6)), "JPEG", icc_profile=bytes(200_000)),
    "lossy WebP": encoded(Image.new("RGB", (5, 6)), "WEBP"),
    "lossless WebP": encoded(Image.new("RGB", (5, 6)), "WEBP", lossless=True),
    "WebP with alpha": encoded(Image.new("RGBA", (5, 6), (1, 2, 3, 4)), "WEBP"),
}


@pytest.mark.parametrize("content", KINDS.values(), ids=KINDS)
def test_every_kind_of_picture_is_taken(client, content):
    found = described(client, zip_of(folders(12) | {"cat/odd.webp": content}))
    assert found["inputs"][0]["shape"] == [3, 6, 5]


def with_a_damaged_header():
    """tarfile takes a header whose checksum is wrong for the end, and the rest for nothing."""
    content = bytearray(tar_of(folders(20)))
    content[content.index(b"dog/013.png")] ^= 1
    return bytes(content)


GOOD = picture()
GOOD_NAME = "cat/000.png"
GIANT = 65_535  # the largest side of a JPEG
HOSTILE = {
    "a way out": (zip_with("../cat.png", GOOD), "unsafe-file", "../cat.png"),
    "a way out below": (zip_with("cat/../../x.png", GOOD), "unsafe-file", "cat/../../x.png"),
    "an absolute name": (zip_with("/etc/x.png", GOOD), "unsafe-file", "/etc/x.png"),
    "a drive": (zip_with("C:/x.png", GOOD), "unsafe-file", "C:/x.png"),
    "a backslash": (zip_with("cat\\x.png", GOOD), "unsafe-file", "x.png"),
    "a control character": (zip_with("cat/\x1b[2Jx.png", GOOD), "unsafe-file", "x1b"),
    "a link in a zip": (zip_with("cat/l.png", b"/etc", stat.S_IFLNK), "unsafe-file", "l.png"),
    "a device in a zip": (zip_with("cat/d.png", b"", stat.S_IFCHR), "unsafe-file", "d.png"),
    "an archive in a zip": (zip_with("cat/more.zip", zip_of({})), "unsafe-file", "cat/more.zip"),
    "a script": (zip_with("cat/run.py", b"1"), "unsafe-file", "cat/run.py"),
    "a pickle": (zip_with("cat/data.pkl", b"\x80"), "unsafe-file", "cat/data.pkl"),
    "another kind": (zip_with("cat/x.png", b"GIF89a" + bytes(20)), "invalid-dataset", "cat/x.png"),
    "an empty file": (zip_with("cat/x.png", b""), "invalid-dataset", "cat/x.png"),
    "half a header": (zip_with("cat/x.png", GOOD[:20]), "invalid-dataset", "cat/x.png"),
    "a giant PNG": (zip_with("cat/x.png", png_of(GIANT, GIANT)), "invalid-dataset", "65535 x"),
    "a giant JPEG": (zip_with("cat/x.jpg", jpeg_of(GIANT, GIANT)), "invalid-dataset", "65535 x"),
    "no pixels": (zip_with("cat/x.png", png_of(0, 5)), "invalid-dataset", "0 x 5"),
    "no frame": (zip_with("cat/x.jpg", b"\xff\xd8\xff\xd9"), "invalid-dataset", "cat/x.jpg"),
    "no class": (zip_with("x.png", GOOD), "invalid-dataset", "x.png"),
    "a bomb": (
        zip_of(folders() | {"cat/x.png": bytes(30 << 20)}, zipfile.ZIP_DEFLATED),
        "unsafe-file",
        "cat/x.png",
    ),
    "bombs together": (
        zip_of({f"{n}.png": bytes(900_000) for n in range(12)}, zipfile.ZIP_DEFLATED),
        "file-too-large",
        "10800000 bytes",
    ),
    "a small bomb": (
        zip_of(folders() | {"cat/x.png": bytes(900_000 + (1 << 18))}, zipfile.ZIP_DEFLATED),
        "unsafe-file",
        "cat/x.png",
    ),
    "a way out of a tar": (tar_with("../cat.png"), "unsafe-file", "../cat.png"),
    "a symbolic link": (tar_with("cat/x.png", tarfile.SYMTYPE, "/etc"), "unsafe-file", "cat/x.png"),
    "a hard link": (tar_with("cat/x.png", tarfile.LNKTYPE, GOOD_NAME), "unsafe-file", "cat/x.png"),
    "a device": (tar_with("cat/x.png", tarfile.CHRTYPE), "unsafe-file", "cat/x.png"),
    "a pipe": (tar_with("cat/x.png", tarfile.FIFOTYPE), "unsafe-file", "cat/x.png"),
    "holes": (tar_with("cat/x.png", tarfile.GNUTYPE_SPARSE), "unsafe-file", "cat/x.png"),
    "a name twice in a tar": (tar_with("cat/000.png"), "malformed-file", "cat/000.png"),
    "a damaged header in a tar": (with_a_damaged_header(), "malformed-file", "damaged at byte"),
    "a truncated tar": (tar_of(folders())[:9000], "malformed-file", ""),
    "a member beyond the tar": (tar_with("cat/x.png", size=1 << 20), "malformed-file", "cat/x.png"),
    "a member too large": (tar_with("cat/x.png", size=1 << 40), "file-too-large", "cat/x.png"),
    "no files": (zip_of({"cat/": b""}), "invalid-dataset", "without files"),
    "folders of a split and others": (
        zip_of(folders(prefix="train/") | folders(prefix="other/")), "invalid-dataset", "other",
    ),
    "two splits to measure on": (
        zip_of(folders(prefix="test/") | folders(prefix="val/")), "invalid-dataset", "val",
    ),
    "one class": (zip_of(shard(12, 1)), "invalid-dataset", "1 classes"),
    "a class that is no number": (
        zip_of(shard() | {"00001.cls": b"cat"}), "invalid-dataset", "00001.cls",
    ),
    "a negative class": (zip_of(shard() | {"00001.cls": b"-1"}), "invalid-dataset", "00001.cls"),
    "a picture without a class": (zip_of(shard() | {"x.png": GOOD}), "invalid-dataset", "'x'"),
    "a class without a picture": (zip_of(shard() | {"x.cls": b"1"}), "invalid-dataset", "'x'"),
    "two pictures of a sample": (
        zip_of(shard() | {"00001.jpg": GOOD}), "invalid-dataset", "00001.jpg",
    ),
    "too few pictures": (zip_of(folders(9)), "dataset-too-small", "9 samples"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "code", "told"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_refused_by_name(client, content, code, told):
    problem = refused(client, content)
    assert problem["code"] == code
    assert told in problem["detail"]


def test_a_bomb_by_count_is_refused(client, monkeypatch):
    for module in (zip_archive, tar_archive):
        monkeypatch.setattr(module, "MAX_MEMBERS", 11)
    for write in (zip_of, tar_of):
        problem = refused(client, write(folders(12)))
        assert "11" in problem["detail"]
        described(client, write(folders(11)))


def test_a_large_member_is_refused(client, monkeypatch):
    for module in (zip_archive, tar_archive):
        monkeypatch.setattr(module, "MAX_MEMBER_BYTES", len(GOOD) + 100)
    for write in (zip_of, tar_of):
        content = write(folders() | {"cat/x.png": GOOD + bytes(200)})
        assert "cat/x.png" in refused(client, content)["detail"]


def test_entries_that_share_their_bytes_are_refused(client):
    """Overlapping entries: each costs its place in the directory alone (Fifield 2019)."""
    content = zip_of({"cat/0.png": bytes(300_000)})
    start, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    entry = content[start:end]
    directory = b"".join(entry.replace(b"cat/0", f"cat/{n}".encode()) for n in range(3))
    tail = bytearray(content[end:])
    tail[8:12] = b"\x03\0\x03\0"
    tail[12:16] = len(directory).to_bytes(4, "little")
    problem = refused(client, content[:start] + directory + bytes(tail))
    assert (problem["code"], "share" in problem["detail"]) == ("unsafe-file", True)


def test_a_picture_with_a_long_profile_is_measured_behind_it(client):
    entries = folders() | {"cat/x.jpg": jpeg_of(6, 5, before=150_000)}
    assert described(client, zip_of(entries))["counts"] == {"images": 13}


def test_a_picture_too_small_for_its_crop_is_named(client):
    problem = refused(client, zip_of(folders()), transforms='[{"center_crop": 32}]')
    assert "'cat/000.png'" in problem["detail"]


@pytest.mark.parametrize(
    "transforms",
    [
        '{"resize": 3}', '[{"resize": 0}]', '[{"resize": 3, "crop": 1}]', '["resize"]', "[1]",
        '[{"rotate": 3}]', '[{"resize": [3]}]', '[{"resize": 1e9}]', '[{"resize": true}]',
        '[{"channels": 2}]', "[" + '{"resize": 3},' * 8 + '{"resize": 3}]',
    ],
)  # fmt: skip
def test_transforms_that_cannot_be_meant_are_refused(client, transforms):
    assert refused(client, zip_of(folders()), transforms=transforms)["code"] == "invalid-dataset"


def test_transforms_that_are_no_json_are_refused(client):
    problem = refused(client, zip_of(folders()), transforms="resize")
    assert problem["errors"][0]["parameter"] == "transforms"


def test_a_strip_that_grows_when_it_is_resized_is_refused(client):
    entries = {f"{n}.png": png_of(1, 1 << 25) for n in range(10)}
    problem = refused(client, zip_of(entries), transforms='[{"resize": 256}]')
    assert "pixels were wanted" in problem["detail"]


def test_a_built_in_set_is_cropped(client):
    order = {"builtin": "cifar10", "transforms": [{"center_crop": 24}]}
    answer = client.post("/v1/datasets", json=order)
    assert answer.status_code == 201
    assert answer.json()["description"]["inputs"][0]["shape"] == [3, 24, 24]
    whole = client.post("/v1/datasets", json={"builtin": "cifar10"}).json()
    assert whole["id"] != answer.json()["id"]
    order["transforms"] = [{"center_crop": 64}]
    assert client.post("/v1/datasets", json=order).json()["code"] == "invalid-dataset"


ZIP, TAR = zip_of(folders(10)), tar_of(shard(10))


@given(
    content=st.sampled_from([ZIP, TAR]),
    where=st.integers(0, 10**6),
    bits=st.binary(min_size=1, max_size=4),
)
def test_changed_bytes_are_refused_or_harmless(tmp_path_factory, content, where, bits):
    where %= len(content)
    path = tmp_path_factory.getbasetemp() / "changed"
    path.write_bytes(content[:where] + bits + content[where + len(bits) :])
    try:
        found = describe(path, 1 << 20, Declaration())
    except ProblemError:
        return
    assert found["inputs"][0]["name"] == "images"


def test_members_are_read_in_no_other_order_than_that_of_their_names(tmp_path):
    path = tmp_path / "file"
    entries = folders(12)
    path.write_bytes(zip_of(dict(reversed(entries.items()))))
    with archive_module.open_archive(path, 1 << 20) as archive:
        assert {m.name: archive.read(m) for m in archive.members} == entries
