"""A process for what a stranger sent: limited memory, time and files, and no secrets of ours.

The parent calls `run_confined`; the child, once it has imported what it needs, `confine`.
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
    kept = {key: value for key, value in os.environ.items() if not key.startswith(SECRETS)}
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        env=kept | {"OMP_NUM_THREADS": "1"},
        timeout=seconds,
    )


def confine(*, memory_bytes: int, seconds: float, file_bytes: int) -> None:
    """Limit this process from now on; what it has taken so far does not count.

    Args:
        memory_bytes: for data.
        seconds: of processor time.
        file_bytes: of the largest file that it writes.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limits = {
        resource.RLIMIT_CPU: math.ceil(usage.ru_utime + usage.ru_stime + seconds),
        resource.RLIMIT_DATA: _data_bytes() + memory_bytes,
        resource.RLIMIT_FSIZE: file_bytes,
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
