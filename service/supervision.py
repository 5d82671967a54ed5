"""A worker as a child process, started again whenever it dies."""

import ctypes
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

GRACE_SECONDS = 5.0  # for the worker to end its job process
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0  # a worker that lived this long did not die of its start
PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


@contextmanager
def kept_alive(environment: Mapping[str, str]) -> Iterator[None]:
    """One worker at any time; on leaving it is asked to end, and it has."""
    watch = _Watch(environment)
    watch.start()
    try:
        yield
    finally:
        watch.stop()


class _Watch(threading.Thread):
    """Starts workers, one after the other.

    One thread starts them all and lives longer than each: the kernel ends a child with the thread
    that started it.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__(name="worker", daemon=True)
        self._environment = environment
        self._child: subprocess.Popen[bytes] | None = None
        self._changing = threading.Lock()
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End the worker that runs now; there is no next one."""
        with self._changing:
            self._stopping.set()
            child = self._child
        if child is not None:
            child.terminate()
            try:
                child.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
        self.join()

    def run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            with self._changing:
                if self._stopping.is_set():
                    return
                started_at, self._child = time.monotonic(), _started(self._environment)
            code = self._child.wait()
            if self._stopping.is_set():
                return
            if time.monotonic() - started_at > STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            print(
                f"the worker ended with exit code {code}; the next one starts in {pause:.0f} s",
                file=sys.stderr,
                flush=True,
            )
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _started(environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A worker in a session of its own, so that Ctrl-C reaches it once: from us."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def bind() -> None:
        if libc is not None:  # not even kill -9 of this process leaves the worker behind
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    return subprocess.Popen(
        [sys.executable, "-m", "workers"],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=bind,  # noqa: PLW1509 (takes no lock: one system call between fork and exec)
    )
