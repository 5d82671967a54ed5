import io
import struct
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.errors import ProgramError
from compress.program import archive
from compress.program.archive import Archive

CONTENTS = {"a": b"first", "data/b": b"", "data/c": bytes(range(256))}


def zipped(*entries, root="model", compression=zipfile.ZIP_STORED, comment=b""):
    """The bytes of an archive, written by Python's own library."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as writer:
        for name, content in entries or CONTENTS.items():
            writer.writestr(f"{root}/{name}" if root else name, content)
        writer.comment = comment
    return file.getvalue()


@pytest.fixture
def opened(tmp_path):
    """Opens the bytes of an archive."""

    def open_(content):
        (tmp_path / "file").write_bytes(content)
        with Archive(tmp_path / "file") as found:
            return {name: bytes(found.read(name)) for name in found.members}

    return open_


@pytest.mark.parametrize("root", ["model", "a name with spaces", "Modell ü"])
def test_members_are_read_as_they_were_written(opened, root):
    assert opened(zipped(root=root)) == CONTENTS


@pytest.mark.parametrize(
    "name", ["../b", "a/../../b", "/b", "a//b", "./b", "a\\b", "a\nb", "b/", ""]
)
def test_a_name_that_leads_elsewhere_is_refused(opened, name):
    with pytest.raises(ProgramError, match="a plain relative path was wanted"):
        opened(zipped(("a", b""), (name, b"")))


def test_an_absolute_name_is_refused(opened):
    with pytest.raises(ProgramError, match="'/etc/passwd': a plain relative path"):
        opened(zipped(("/etc/passwd", b""), root=None))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice_is_refused(opened):
    with pytest.raises(ProgramError, match="'a' comes twice"):
        opened(zipped(("a", b"one"), ("a", b"two")))


def test_two_folders_are_refused(opened):
    with pytest.raises(ProgramError, match="2 folders came"):
        opened(zipped(("one/a", b""), ("two/a", b""), root=None))


def test_a_member_that_would_unfold_is_refused_unread(opened):
    bomb = zipped(("a", bytes(10_000_000)), compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 20_000
    with pytest.raises(ProgramError, match="'model/a' is compressed or encrypted"):
        opened(bomb)


def test_an_encrypted_member_is_refused(opened):
    content = bytearray(zipped())
    content[content.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(ProgramError, match="compressed or encrypted"):
        opened(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a file of 0 bytes"),
        (b"nothing of the kind" * 9, "does not end as a zip archive does"),
        (zipped()[:-1], "does not end as a zip archive does"),
        (zipped() + b"\0", "does not end as a zip archive does"),
        (zipped(comment=b"hidden"), "does not end as a zip archive does"),
        (b"before" + zipped(), "bytes stand between the directory and the file's end"),
    ],
    ids=["empty", "text", "cut", "longer", "comment", "prefix"],
)
def test_a_file_that_is_no_whole_archive_is_refused(opened, content, message):
    with pytest.raises(ProgramError, match=message):
        opened(content)


def test_an_archive_in_a_truncated_archive_is_not_found(opened):
    whole = zipped(("sample", zipped(("model.json", b"another"))), ("model.json", b"the one"))
    cut = whole[: whole.index(b"the one")]
    assert zipfile.ZipFile(io.BytesIO(cut)).namelist() == ["model/model.json"]
    with pytest.raises(ProgramError, match="does not end as a zip archive does"):
        opened(cut)


def field(member, offset, form, value, signature=b"PK\1\2"):
    """The archive with one field of the entry of a member changed."""
    changed = bytearray(zipped())
    place = -1
    for _ in range(member + 1):
        place = changed.index(signature, place + 1)
    struct.pack_into(form, changed, place + offset, value)
    return changed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (field(1, 42, "<I", 0), "has one entry in the directory and another"),
        (field(1, 42, "<I", 10**9), "behind the end of the file"),
        (field(0, 28, "<H", 60_000), "a plain relative path was wanted"),
        (field(0, 34, "<H", 1), "the directory is malformed at its byte 0"),
        (field(0, 0, "<4s", b"XXXX"), "the directory is malformed at its byte 0"),
        (field(0, 8, "<H", 8, b"PK\3\4"), "has one entry in the directory and another"),
        (field(0, 8, "<H", 2, b"PK\5\6"), "were wanted"),
        (field(0, 10, "<H", 0, b"PK\5\6"), "were wanted"),
        (field(0, 20, "<H", 5, b"PK\5\6"), "does not end as a zip archive does"),
    ],
)
def test_a_directory_that_lies_is_refused(opened, content, message):
    with pytest.raises(ProgramError, match=message):
        opened(content)


def test_members_that_overlap_are_refused(opened):
    content = zipped(("a", b"one" * 20), ("b", b"two" * 20))
    longer = bytearray(content)
    first = content.index(b"PK\1\2")
    struct.pack_into("<2I", longer, first + 20, 80, 80)
    with pytest.raises(ProgramError, match=r"'model/b' begins at byte .* members overlap"):
        opened(longer)


def test_bytes_that_belong_to_no_member_are_refused(opened):
    shorter = bytearray(zipped(("a", bytes(100)), ("b", b"")))
    first = shorter.index(b"PK\1\2")
    struct.pack_into("<2I", shorter, first + 20, 50, 50)
    with pytest.raises(ProgramError, match="something stands between them"):
        opened(shorter)


def test_a_flipped_byte_is_noticed(opened):
    content = bytearray(zipped())
    content[content.index(b"first")] ^= 1
    with pytest.raises(ProgramError, match="its CRC differs"):
        opened(content)


def test_more_members_than_a_network_has_are_refused_uncounted(opened, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBERS", 2)
    with pytest.raises(ProgramError, match="3 members came, 1 to 2"):
        opened(zipped())


def test_a_directory_that_is_too_large_is_not_read(opened, monkeypatch):
    monkeypatch.setattr(archive, "MAX_DIRECTORY_BYTES", 100)
    with pytest.raises(ProgramError, match=r"a directory of \d+ bytes came"):
        opened(zipped())


def test_a_member_is_read_up_to_a_size(tmp_path):
    (tmp_path / "file").write_bytes(zipped())
    with Archive(tmp_path / "file") as found:
        assert "data/c" in found
        assert "data/d" not in found
        with pytest.raises(ProgramError, match="'data/c' has 256 bytes, at most 255"):
            found.read("data/c", 255)
        with pytest.raises(ProgramError, match="the archive holds no 'data/d'"):
            found.read("data/d")


@settings(max_examples=300, deadline=None)
@given(
    place=st.integers(0, len(zipped()) - 1),
    content=st.binary(min_size=1, max_size=6),
    cut=st.integers(0, 40),
)
def test_any_bytes_are_read_or_refused(tmp_path_factory, place, content, cut):
    changed = bytearray(zipped())
    changed[place : place + cut] = content
    path = tmp_path_factory.mktemp("archive") / "file"
    path.write_bytes(changed)
    try:
        with Archive(path) as found:
            for name in found.members:
                found.read(name)
    except ProgramError:
        return
    assert len(changed) == len(zipped())
