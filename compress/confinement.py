"""A process for what a stranger sent: limited memory, time and files, and no secrets of ours.

The parent calls `run_confined`, or `start_confined` for a child that is asked again and again; the
child, once it has imported what it needs, `confine`.
"""

import math
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Final

SECRETS: Final = "RANKSEARCH_"  # settings, the address of the database among them


def run_confined(
    module: str, *arguments: object, seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run `python -m module arguments` without our settings, and on one thread.

    Args:
        module: whose main calls `confine`.
        arguments: as they are printed.
        seconds: by the clock, after which it is killed.

    Raises:
        subprocess.TimeoutExpired: it was.
    """
    return subprocess.run(
        _command(module, *arguments),
        check=False,
        capture_output=True,
        text=True,
        env=_environment(),
        timeout=seconds,
    )


def start_confined(module: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Start the same, to be asked and to answer through pipes; its complaints are not kept.

    Args:
        module: whose main calls `confine`, and ends with its standard input.
        arguments: as they are printed.
    """
    return subprocess.Popen(
        _command(module, *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=_environment(),
    )


def confine(*, memory_bytes: int, seconds: float, file_bytes: int) -> None:
    """Limit this process from now on; what it has taken so far does not count.

    Args:
        memory_bytes: for data.
        seconds: of processor time.
        file_bytes: of the largest file that it writes.
    """
    limit_time(seconds)
    _limit(resource.RLIMIT_DATA, _data_bytes() + memory_bytes)
    _limit(resource.RLIMIT_FSIZE, file_bytes)
    _limit(resource.RLIMIT_CORE, 0)


def limit_time(seconds: float) -> None:
    """End this process after so much more processor time, unless it is given more before."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, math.ceil(usage.ru_utime + usage.ru_stime + seconds))


def _limit(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (most, hard))


def _command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", module, *map(str, arguments)]


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(SECRETS)}
    return kept | {"OMP_NUM_THREADS": "1"}


def _data_bytes() -> int:
    """Memory that the process has for data so far (Linux)."""
    status = Path("/proc/self/status").read_text()
    (kibibytes,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmData:"))
    return int(kibibytes) << 10
