"""A `.pt2` archive tried in a process of its own, whose memory, time and files are limited.

`python -m compress.program.child PATH MEMORY_BYTES SECONDS` reads an archive and runs its network.
What it found, or what is wrong, is one JSON object, the last line of its standard output.
"""

import json
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from compress.confinement import confine, run_confined
from compress.errors import ProgramError

MEMORY_BYTES: Final = 8 << 30
SECONDS: Final = 300.0
FILE_BYTES: Final = 1 << 16  # torch tries whether a folder for temporary files is one
STARTING_SECONDS: Final = 60.0  # in which torch is imported


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
    try:
        done = run_confined(
            "compress.program.child",
            path,
            memory_bytes,
            seconds,
            seconds=2 * seconds + STARTING_SECONDS,
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

    confine(memory_bytes=int(memory_bytes), seconds=float(seconds), file_bytes=FILE_BYTES)
    try:
        found: dict[str, Any] = asdict(examine(path))
    except ProgramError as error:
        notes = getattr(error, "__notes__", [])
        found = {"error": "; ".join([str(error), *notes])}
    except (MemoryError, RuntimeError):  # of torch, whose message tells no more
        found = {"error": f"the network takes more than {memory_bytes} bytes"}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
