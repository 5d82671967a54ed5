import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.store.blobs import Blobs

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


def put(blobs: Blobs, content: bytes = CONTENT) -> str:
    with blobs.writer() as writer:
        writer.write(content)
        return writer.commit()


def left(blobs: Blobs) -> list[Path]:
    """Every file but the lock, half-written ones too."""
    files = [path for path in blobs.root.rglob("*") if path.is_file()]
    return [path for path in files if path.name != "lock"]


def grow_old(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_file_is_found_by_the_digest_of_its_content(blobs: Blobs):
    with blobs.writer() as writer:
        for start in range(0, len(CONTENT), 999):
            writer.write(CONTENT[start : start + 999])
        assert writer.sha256 == DIGEST
        assert writer.size_bytes == len(CONTENT)
        assert writer.commit() == DIGEST
    assert blobs.path(DIGEST).read_bytes() == CONTENT
    assert left(blobs) == [blobs.path(DIGEST)]


def test_a_file_that_is_being_written_is_not_there_yet(blobs: Blobs):
    with blobs.writer() as writer:
        writer.write(CONTENT)
        assert not blobs.path(DIGEST).exists()
        assert list(blobs.digests()) == []
        writer.commit()
        assert list(blobs.digests()) == [DIGEST]


def test_a_file_that_is_not_committed_leaves_nothing(blobs: Blobs):
    with blobs.writer() as writer:
        writer.write(CONTENT)
    assert left(blobs) == []

    def break_off() -> None:
        with blobs.writer() as writer:
            writer.write(CONTENT)
            raise ConnectionError

    with pytest.raises(ConnectionError):
        break_off()
    assert left(blobs) == []


def test_the_same_content_is_one_file(blobs: Blobs):
    assert put(blobs) == put(blobs) == DIGEST
    assert left(blobs) == [blobs.path(DIGEST)]


def test_a_file_is_copied_in(blobs: Blobs, tmp_path: Path):
    source = tmp_path / "model.safetensors"
    source.write_bytes(CONTENT)
    assert blobs.put_file(source) == (DIGEST, len(CONTENT))
    assert blobs.path(DIGEST).read_bytes() == source.read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "AB" * 32, "a" * 63, "a" * 64 + "\n"])
def test_what_is_no_digest_is_no_path(blobs: Blobs, name: str):
    with pytest.raises(ValueError, match="64 lower-case hexadecimal digits were wanted"):
        blobs.path(name)


def test_a_full_disk_that_the_last_step_reports_leaves_nothing(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        put(blobs)
    assert caught.value.errno == errno.ENOSPC
    assert left(blobs) == []


FULL = """
import resource, signal, sys
from pathlib import Path
from service.store.blobs import Blobs

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that the write fails instead
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
blobs = Blobs(Path(sys.argv[1]))
with blobs.writer() as writer:
    for _ in range(34):  # of the last one a third fits
        writer.write(b"x" * 3_000)
    writer.commit()
"""


def test_a_disk_that_is_full_midway_leaves_nothing_and_says_so(blobs: Blobs):
    put(blobs)
    command = [sys.executable, "-c", FULL, str(blobs.root)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "OSError: [Errno 27] File too large"
    assert left(blobs) == [blobs.path(DIGEST)]


KILLED = """
import os, signal, sys
from pathlib import Path
from service.store.blobs import Blobs

writer = Blobs(Path(sys.argv[1])).writer()
writer.write(b"half of it")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_swept_away_when_it_is_old(blobs: Blobs):
    put(blobs)
    ended = subprocess.run([sys.executable, "-c", KILLED, str(blobs.root)], check=False)
    assert ended.returncode == -signal.SIGKILL
    (stale,) = set(left(blobs)) - {blobs.path(DIGEST)}

    assert blobs.sweep(untouched_seconds=60) == 0
    assert stale.exists()  # it might be an upload that is going on
    grow_old(stale, 61)
    assert blobs.sweep(untouched_seconds=60) == 1
    assert left(blobs) == [blobs.path(DIGEST)]


def test_a_deleted_file_is_gone(blobs: Blobs):
    put(blobs)
    other = put(blobs, b"other")
    assert blobs.delete(DIGEST)
    assert not blobs.delete(DIGEST)
    assert left(blobs) == [blobs.path(other)]


def test_a_file_that_came_again_counts_as_new(blobs: Blobs):
    put(blobs)
    grow_old(blobs.path(DIGEST), 100)
    put(blobs)
    assert not blobs.delete(DIGEST, unused_seconds=60)
    grow_old(blobs.path(DIGEST), 100)
    assert blobs.delete(DIGEST, unused_seconds=60)
