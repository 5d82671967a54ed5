"""Time that others on the machine do not take: CPU seconds of the calling thread."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from search.runtimes.runtime import Call


@contextmanager
def cpu_clock() -> Iterator[None]:
    """Have the product time each call by the processor's clock instead of the wall's.

    With one thread that waits for nothing both say the same on a quiet machine. On a busy one a
    race by the wall's clock finds speed-ups that are not there, and a search by chance looks for
    just those.
    """
    with patch("search.measurement._time_cpu", _milliseconds):
        yield


def _milliseconds(call: Call) -> float:
    start = time.thread_time_ns()
    call()
    return (time.thread_time_ns() - start) / 1e6
