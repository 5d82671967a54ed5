"""Time that others on the machine do not take: CPU seconds of the calling thread."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from unittest.mock import patch

CLOCK = SimpleNamespace(perf_counter=time.thread_time, perf_counter_ns=time.thread_time_ns)


@contextmanager
def cpu_clock() -> Iterator[None]:
    """Have the product time calls, and end races, by the processor's clock instead of the wall's.

    With one thread that waits for nothing both say the same on a quiet machine. On a busy one a
    race by the wall's clock finds speed-ups that are not there, and a search by chance looks for
    just those.
    """
    with patch("search.measurement.time", CLOCK):
        yield
