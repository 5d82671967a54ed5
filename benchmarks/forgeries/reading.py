"""A process that reads forged files by the service's own entry points, and tells what came of it.

`python -m benchmarks.forgeries.reading` takes a file a line on its standard input, as JSON, and
answers with a line. It is confined, and whatever starts a process, opens a connection or loads a
library while a file is read counts as executed.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.forgeries.originals import Form
from compress.confinement import confine, limit_time
from compress.errors import CompressError
from compress.program.read import examine, read_program
from compress.state_dict import read_state_dict
from compress.torch_archive import check_torch_archive
from compress.unpickling import unpickled
from service.intake import count_parameters
from service.problems import ProblemError

MEMORY_BYTES: Final = 2 << 30
SECONDS: Final = 30.0  # of processor time, of one file
FILE_BYTES: Final = 1 << 16
NO_MEMORY: Final = "can't allocate memory"  # what torch says of it
RAISED: Final = frozenset(
    [
        "ctypes.dlopen", "os.exec", "os.fork", "os.posix_spawn", "os.system", "pty.spawn",
        "socket.connect", "socket.getaddrinfo", "subprocess.Popen",
    ]
)  # fmt: skip


def unpickle(path: Path) -> None:
    """Read a state dict as the child of `compress.unpickling` does."""
    check_torch_archive(path)
    unpickled(path)


def offer_as_weights(path: Path) -> None:
    """Let the check of weights refuse what is none."""
    with suppress(ProblemError):
        count_parameters(path)


ENTRIES: Final[dict[Form, tuple[Callable[[Path], Any], ...]]] = {
    "program": (offer_as_weights, examine),
    "safetensors": (count_parameters, read_state_dict),
    "state_dict": (count_parameters, unpickle),
}
# What may come of a file, the worst last.
KINDS: Final = ("read", "refused", "limit", "ended in its trial", "ended", "foreign", "executed")
ALONE: Final = {"read_program": read_program}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one file."""

    kind: str
    """`read`, `refused` by an error of ours, `limit`, `ended` with its process, `foreign` for any
    other exception, or `executed`."""
    detail: str
    memory_bytes: int
    """That it took beyond what the process had."""


def outcome(form: Form, path: Path) -> Outcome:
    """What the entry points make of a file; the worst counts."""
    found = [_outcome(entry, path) for entry in ENTRIES[form]]
    return max(found, key=lambda one: KINDS.index(one.kind))


def _outcome(entry: Callable[[Path], Any], path: Path) -> Outcome:
    kind, detail = "read", ""
    before = _fresh_peak()
    _raised.clear()
    try:
        entry(path)
    except (CompressError, ProblemError) as error:
        kind, detail = "refused", str(error)
    except Exception as error:
        is_memory = isinstance(error, MemoryError) or NO_MEMORY in str(error)
        kind = "limit" if is_memory else "foreign"
        detail = "".join(traceback.format_exception(error)[-6:])
    if _raised:
        kind, detail = "executed", ", ".join(_raised)
    return Outcome(kind, f"{entry.__name__}: {detail[-2000:]}", _memory("VmHWM") - before)


_raised: list[str] = []


def _watch(event: str, _: tuple[Any, ...]) -> None:
    if event in RAISED:
        _raised.append(event)


def _fresh_peak() -> int:
    """Memory that the process has, from which on its peak is counted anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (kibibytes,) = (line.split()[1] for line in lines if line.startswith(f"{key}:"))
    return int(kibibytes) << 10


def main() -> None:
    """Read as long as files come."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # torch prints
    torch.set_num_threads(1)
    sys.addaudithook(_watch)
    confine(memory_bytes=MEMORY_BYTES, seconds=SECONDS, file_bytes=FILE_BYTES)
    for line in sys.stdin:
        given = json.loads(line)
        limit_time(SECONDS)
        path = Path(given["path"])
        alone = ALONE.get(given["form"])
        found = outcome(given["form"], path) if alone is None else _outcome(alone, path)
        print(json.dumps(asdict(found)), file=answers)


if __name__ == "__main__":
    main()
