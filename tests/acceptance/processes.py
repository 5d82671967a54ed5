"""Processes as a user starts them, and a look at which are still there."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
RANKSEARCH = str(BIN / "ranksearch")
PATIENCE_SECONDS = 60.0

Answer = TypeVar("Answer")


def until(look: Callable[[], Answer], seconds: float = PATIENCE_SECONDS) -> Answer:
    """The first answer of `look` that is true."""
    deadline = time.monotonic() + seconds
    while not (answer := look()):
        assert time.monotonic() < deadline, f"nothing came within {seconds} s"
        time.sleep(0.02)
    return answer


def environment(**settings: object) -> dict[str, str]:
    """That of the tests with these settings and no others; commands are found as in an image."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("RANKSEARCH_")}
    given = {f"RANKSEARCH_{name.upper()}": str(value) for name, value in settings.items()}
    return kept | given | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


@contextmanager
def running(
    command: Sequence[str], env: Mapping[str, str], **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """A process with its output in pipes, in a session of its own; killed on leaving."""
    process = subprocess.Popen(
        command,
        env=dict(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )
    with process:
        try:
            yield process
        finally:
            for child in [process.pid, *descendants(process.pid)]:
                kill(child)


def kill(pid: int) -> None:
    """End a process at once, if it has not ended."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def descendants(pid: int) -> list[int]:
    """Children, their children and so on, whatever sessions they have made."""
    found: list[int] = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(after_name[1]) == pid and after_name[0] != "Z":
            child = int(status.parent.name)
            found += [child, *descendants(child)]
    return found
