"""Times of calls that take turns, and what a call allocates.

On a CPU they are CPU seconds: those of one thread, so that whoever works beside us takes none. On
a GPU they are between two of its own events.
"""

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

Call = Callable[[], object]


def raced(
    calls: Mapping[str, Call], device: torch.device, rounds: int, seed: int = 0
) -> dict[str, list[float]]:
    """Milliseconds of each call in each round; in a round all run once, in an order drawn anew."""
    shuffler, names = random.Random(seed), list(calls)
    clock = _cuda_ms if device.type == "cuda" else _cpu_ms
    for call in calls.values():
        call()  # the first one allocates and chooses kernels
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        shuffler.shuffle(names)
        for name in names:
            found[name].append(clock(calls[name]))
    return found


def spread(times: Sequence[float]) -> dict[str, float]:
    """Median, and the 10th and 90th percentile."""
    tenths = statistics.quantiles(times, n=10, method="inclusive")
    figures = {"p50": statistics.median(times), "p10": tenths[0], "p90": tenths[-1]}
    return {name: round(value, 3) for name, value in figures.items()}


def ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """The median over the rounds of T / T of the other."""
    ratios = (one / other for one, other in zip(times, others, strict=True))
    return round(statistics.median(ratios), 3)


def peak_bytes(call: Call, device: torch.device) -> int:
    """What torch has allocated at most during a call, above what was there before."""
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    return peak_of(profiler.profiler.kineto_results.events())


def peak_of(events: Sequence[Any]) -> int:
    """The greatest sum of what was allocated and not freed yet, in the order of time."""
    held = most = 0
    memory = (event for event in events if event.name() == "[memory]")
    for event in sorted(memory, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def _cpu_ms(call: Call) -> float:
    begun = time.process_time_ns()
    call()
    return (time.process_time_ns() - begun) / 1e6


def _cuda_ms(call: Call) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)
