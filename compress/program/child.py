"""A `.pt2` archive tried in a process of its own, whose memory, time and files are limited.

`python -m compress.program.child PATH MEMORY_BYTES SECONDS` reads an archive and runs its network.
What it found, or what is wrong, is one JSON object, the last line of its standard output.
"""

import json
import math
import os
import resource
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from compress.errors import ProgramError

MEMORY_BYTES: Final = 8 << 30
SECONDS: Final = 300.0
FILE_BYTES: Final = 1 << 16  # torch tries whether a folder for temporary files is one
STARTING_SECONDS: Final = 60.0  # in which torch is imported
SECRETS: Final = "RANKSEARCH_"  # settings, the address of the database among them


@dataclass(frozen=True, slots=True)
class ProgramReport:
    """What a trial tells of a network."""

    input_shape: tuple[int, ...]
    """Of the first input, for a batch of one."""
    input_dtype: str
    output_shape: tuple[int, ...]
    """Of the first output, for a batch of one."""
    activation_bytes: int
    """That a batch of three holds at most."""


def try_in_child(
    path: str | Path, *, memory_bytes: int = MEMORY_BYTES, seconds: float = SECONDS
) -> ProgramReport:
    """Read an archive and run its network in another process.

    Args:
        path: of the archive.
        memory_bytes: that the process may take for it.
        seconds: of processor time that it may take for it.

    Raises:
        ProgramError: the archive is refused, the network fails, or its process was ended.
    """
    command = [sys.executable, "-m", "compress.program.child", path, memory_bytes, seconds]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(SECRETS)}
    try:
        done = subprocess.run(
            [*map(str, command)],
            check=False,
            capture_output=True,
            text=True,
            env=kept | {"OMP_NUM_THREADS": "1"},
            timeout=2 * seconds + STARTING_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise ProgramError(f"the network was not done after {seconds:g} s") from error
    if done.returncode == -signal.SIGXCPU:
        raise ProgramError(f"the network was not done after {seconds:g} s of processor time")
    if done.returncode:
        raise ProgramError(
            f"the process that tried the network ended with code {done.returncode}: one of its "
            f"operators breaks torch, or takes more than {memory_bytes} bytes"
        )
    document = json.loads(done.stdout.splitlines()[-1])
    if "error" in document:
        raise ProgramError(document["error"])
    return ProgramReport(
        tuple(document["input_shape"]),
        document["input_dtype"],
        tuple(document["output_shape"]),
        document["activation_bytes"],
    )


def main() -> None:
    """Try the archive of the command line."""
    path, memory_bytes, seconds = sys.argv[1:]
    from compress.program.read import examine  # noqa: PLC0415, the parent needs no torch

    _limit(int(memory_bytes), float(seconds))
    try:
        found: dict[str, Any] = asdict(examine(path))
    except ProgramError as error:
        notes = getattr(error, "__notes__", [])
        found = {"error": "; ".join([str(error), *notes])}
    except (MemoryError, RuntimeError):  # of torch, whose message tells no more
        found = {"error": f"the network takes more than {memory_bytes} bytes"}
    print(json.dumps(found))


def _limit(memory_bytes: int, seconds: float) -> None:
    """Take what was used so far as the start, and let no large file be written."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = usage.ru_utime + usage.ru_stime
    limits = {
        resource.RLIMIT_CPU: math.ceil(used + seconds),
        resource.RLIMIT_DATA: _data_bytes() + memory_bytes,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in limits.items():
        _, hard = resource.getrlimit(limit)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (most, hard))


def _data_bytes() -> int:
    """Memory that the process has for data so far (Linux)."""
    status = Path("/proc/self/status").read_text()
    (kibibytes,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmData:"))
    return int(kibibytes) << 10


if __name__ == "__main__":
    main()
