"""Time that others on the machine do not take: CPU seconds."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

from search.recovery.recovery import recover_

CLOCK = SimpleNamespace(perf_counter=time.thread_time, perf_counter_ns=time.thread_time_ns)


@contextmanager
def cpu_clock() -> Iterator[None]:
    """Have the product time calls, and end races and trainings, by the processor's clock.

    With one thread that waits for nothing both say the same on a quiet machine. On a busy one a
    race by the wall's clock finds speed-ups that are not there, and a search by chance looks for
    just those, and whoever trains meanwhile learns less.
    """
    with (
        patch("search.measurement.time", CLOCK),
        patch("search.stopwatch.time", CLOCK),
        patch("search.subject.recover_", partial(recover_, clock=time.process_time)),
    ):
        yield
