"""`ranksearch serve` in a process of its own, with everything it keeps in one new folder."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from service.client import Client

STOP_SECONDS = 20.0


@contextmanager
def served(folder: Path) -> Iterator[Client]:
    """A client of a service on a free port; on leaving, nothing of the service is left running.

    Raises:
        RuntimeError: the service does not start; the end of its log says why.
    """
    log_path = folder / "serve.log"
    kept = {name: text for name, text in os.environ.items() if not name.startswith("RANKSEARCH_")}
    command = [str(Path(sys.executable).with_name("ranksearch")), "serve", "--port", "0", "--json"]
    with log_path.open("wb") as log:
        child = subprocess.Popen(
            [*command, "--data-dir", str(folder / "data")],
            env=kept,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # Ctrl-C is ours to pass on
        )
    try:
        assert child.stdout is not None
        announced = child.stdout.readline()
        if not announced:
            raise RuntimeError(f"the service does not start:\n{log_path.read_text()[-2000:]}")
        found = json.loads(announced)
        with Client(found["url"], found["token"]) as client:
            yield client
    finally:
        _stop(child)


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ask it to leave; it takes its worker along."""
    with child:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
