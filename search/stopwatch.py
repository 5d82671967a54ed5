"""Calls of one network timed, a turn at a time."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from search.runtimes.runtime import Call, Runtime

TURN_MS = 2.0  # a turn repeats a short network until about this long
MOST_CALLS = 25  # of a turn
WARM_BELOW_MS = 20.0  # longer networks do not profit from the caches of the call before


class Stopwatch:
    """An instance of a network, ready to be timed call by call."""

    def __init__(self, call: Call, example: Tensor) -> None:
        self._call = call
        self._time = _time_cuda if example.is_cuda else _time_cpu
        with torch.inference_mode():
            typical = self._time(call)  # the first call allocates and chooses kernels
            if typical < WARM_BELOW_MS:
                typical = self._time(call)
        self._calls = max(1, min(MOST_CALLS, math.ceil(TURN_MS / max(typical, 1e-6))))
        self._warms = typical < WARM_BELOW_MS

    def turn(self) -> list[float]:
        """Milliseconds of each call of one turn."""
        with torch.inference_mode():
            if self._warms:
                self._call()
            return [self._time(self._call) for _ in range(self._calls)]


@contextmanager
def computing(runtime: Runtime) -> Iterator[None]:
    """Torch computes with the runtime's threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(runtime.torch_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _time_cpu(call: Call) -> float:
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e6


def _time_cuda(call: Call) -> float:
    start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)
