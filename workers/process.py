"""The process of one job, seen from outside: start, stop, and what it said last."""

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

LINE_BYTES = 16384
LINES_KEPT = 10
# Left out of the reason of a failure: the frames of a traceback and the records of the log, which
# name the paths of this machine and are in the log already.
FRAME_OR_RECORD = (" ", "{")


class JobProcess:
    """A child in a session of its own, so that a signal reaches all that it starts.

    What it writes goes through to our stderr; the last lines are kept for the reason of a failure.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], wake: Callable[[], object]
    ) -> None:
        """Start it. `wake` is called, in a thread, when it closes its output: it has ended.

        To be called from the main thread: the kernel takes the child along when the *thread* that
        started it ends.
        """
        self._child = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._wake = wake
        self._pump = threading.Thread(target=self._pass_on, name="output", daemon=True)
        self._pump.start()

    @property
    def id(self) -> int:
        """Process id, and id of the group."""
        return self._child.pid

    @property
    def has_ended(self) -> bool:
        return self._child.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the group; nothing where it is gone."""
        # The group outlives its leader as long as anything that the leader started.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, number)

    def terminate(self, grace_seconds: float) -> None:
        """SIGTERM to the group, and at most `grace_seconds` for the process to end; then `kill`."""
        self.signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(grace_seconds)

    def kill(self) -> None:
        """SIGKILL to the group, which is gone on return."""
        self.signal(signal.SIGKILL)
        self._child.wait()
        self._pump.join(1.0)

    def last_words(self) -> str:
        """How it ended, and the last lines it wrote; after `kill`."""
        code = self._child.returncode
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return "\n".join([f"the job process ended with {how}", *self._lines])

    def _pass_on(self) -> None:
        assert self._child.stdout is not None
        with self._child.stdout as output:
            while line := output.readline(LINE_BYTES):
                text = line.decode(errors="replace")
                if not text.startswith(FRAME_OR_RECORD):
                    self._lines.append(text.rstrip("\n"))
                with suppress(OSError, ValueError):  # a closed log must not block the job
                    sys.stderr.write(text)
                    sys.stderr.flush()
        self._wake()
