"""Honest timing: networks interleaved in random order, medians with their spread.

The same layer drifts by half within an hour, and whoever runs beside us disturbs one network and
not the other. So nothing is compared with yesterday's figure: each round runs every network once,
in an order drawn anew, and two networks are compared by the ratio of their times within a round.
What a process freed before decides whether glibc keeps the memory of a call for the next one or has
it made anew, which can double a fast network's time. So all processes keep it (decision 0005).
"""

import math
import platform
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.load import keep_freed_memory
from search.runtimes.runtime import Call, Layout, Runtime

LEAST_ROUNDS = 7  # the fewest with a 95 % interval of the median that leaves out no round
MOST_ROUNDS = 101
LAYOUT_ROUNDS = (
    3  # at least: the wrong layout costs a tenth, and whatever runs beside us hides that
)
MOST_LAYOUT_ROUNDS = 15
LAYOUT_SECONDS = 0.3  # of more rounds
TURN_MS = 2.0  # a turn repeats a short network until about this long
WARM_BELOW_MS = 20.0  # longer networks do not profit from the caches of the call before
HOPELESS = 1.3  # a layer this much slower than dense in one turn is not timed again


@dataclass(frozen=True, slots=True)
class Timing:
    """Single calls of one network: median, 10th and 90th percentile, number."""

    p50_ms: float
    p10_ms: float
    p90_ms: float
    n: int


@dataclass(frozen=True, slots=True)
class Ratio:
    """T / T_dense within a round: the median of the rounds with its 95 % interval."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Race:
    """What came out of timing networks against the one named "dense"."""

    timings: dict[str, Timing]
    ratios: dict[str, Ratio]  # of all but dense
    layouts: dict[str, Layout]  # in which each was timed
    runtime: str
    rounds: int


def race(
    networks: Mapping[str, nn.Module],
    example: Tensor,
    *,
    runtime: Runtime,
    seconds: float = 1.0,
    layouts: Mapping[str, Layout] | None = None,
    seed: int = 0,
    keep_freed: bool = True,
) -> Race:
    """Time whole networks against `networks["dense"]`, all of them in one runtime.

    Each network is timed in the memory layout that is the faster for it, found beforehand unless
    `layouts` knows it, and left in the layout it came in. Rounds go on until `seconds` are spent,
    but there are seven at least.

    Args:
        networks: in eval mode, on the device of `example`.
        example: the input, at the batch size that counts.
        runtime: and its threads; torch's own number is restored afterwards.
        seconds: what the rounds may take together.
        layouts: of networks that were timed before.
        seed: of the order within the rounds.
        keep_freed: what is freed is kept for the next call, as `compress.load.keep_freed_memory`
            has it, in this process from now on. False leaves the C library as it is.
    """
    shuffler = random.Random(seed)
    turns: dict[str, list[list[float]]] = {name: [] for name in networks}
    if keep_freed:
        keep_freed_memory()
    with _threads(runtime), ExitStack() as stack:
        chosen = {
            name: (layouts or {}).get(name) or best_layout(network, example, runtime=runtime)
            for name, network in networks.items()
        }
        runners = {
            name: _Runner(
                stack.enter_context(runtime.ready(network, example, chosen[name])), example
            )
            for name, network in networks.items()
        }
        names = list(networks)
        rounds, end = 0, time.perf_counter() + seconds
        while rounds < LEAST_ROUNDS or (time.perf_counter() < end and rounds < MOST_ROUNDS):
            shuffler.shuffle(names)
            for name in names:
                turns[name].append(runners[name].turn())
            rounds += 1
    return Race(
        timings={name: _timing(turns[name]) for name in networks},
        ratios={name: _ratio(turns[name], turns["dense"]) for name in networks if name != "dense"},
        layouts=chosen,
        runtime=runtime.name,
        rounds=rounds,
    )


def time_layers(
    layers: Mapping[str, nn.Module],
    example: Tensor,
    *,
    runtime: Runtime,
    layout: Layout,
    seconds: float = 1.0,
    seed: int = 0,
) -> dict[str, float]:
    """Median milliseconds of ways to hold one layer, interleaved with `layers["dense"]`.

    What is far slower than dense in its first turn is not timed again; it keeps that figure.
    The medians of the others are those of their ratios to dense, times the median of dense, so
    that a drift between the rounds favours none.
    """
    keep_freed_memory()
    shuffler = random.Random(seed)
    with _threads(runtime), ExitStack() as stack:
        runners = {
            name: _Runner(stack.enter_context(runtime.ready(layer, example, layout)), example)
            for name, layer in layers.items()
        }
        dense_turns: list[float] = []
        ratios: dict[str, list[float]] = {name: [] for name in layers}
        names = list(layers)
        rounds, end = 0, time.perf_counter() + seconds
        while rounds < 3 or (time.perf_counter() < end and rounds < MOST_ROUNDS):
            shuffler.shuffle(names)
            turns = {name: statistics.median(runners[name].turn()) for name in names}
            dense_turns.append(turns["dense"])
            for name, turn in turns.items():
                ratios[name].append(turn / turns["dense"])
            names = [name for name in names if ratios[name][0] < HOPELESS]
            rounds += 1
    dense_ms = statistics.median(dense_turns)
    return {name: dense_ms * statistics.median(ratios[name]) for name in layers}


def best_layout(network: nn.Module, example: Tensor, *, runtime: Runtime) -> Layout:
    """The memory layout in which `network` is the faster, measured in alternation."""
    layouts = runtime.layouts(network, example)
    if len(layouts) == 1:
        return layouts[0]
    times: dict[Layout, list[float]] = {layout: [] for layout in layouts}
    rounds, end = 0, time.perf_counter() + LAYOUT_SECONDS
    with _threads(runtime):
        while rounds < LAYOUT_ROUNDS or (time.perf_counter() < end and rounds < MOST_LAYOUT_ROUNDS):
            rounds += 1
            for layout, turns in times.items():
                with runtime.ready(network, example, layout) as call:
                    turns.append(statistics.median(_Runner(call, example).turn()))
    return min(times, key=lambda layout: statistics.median(times[layout]))


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the median between two order statistics, valid for any distribution.

    The k-th smallest and k-th largest of n values enclose the median with probability
    1 - 2 P(Bin(n, 1/2) < k); the largest k that keeps `confidence` is taken, and k = 1 where n is
    too small for any.
    """
    ordered = sorted(values)
    n, k, outside = len(ordered), 1, 0.5 ** len(ordered)  # outside: P(Bin < k)
    while k < n / 2:
        outside += math.comb(n, k) * 0.5**n
        if 2 * outside > 1 - confidence:
            break
        k += 1
    return ordered[k - 1], ordered[n - k]


def circumstances(device: torch.device, runtime: Runtime) -> dict[str, Any]:
    """What a timing holds for: the device by name, threads, runtime, allocator and versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": device.type,
        "name": name,
        "threads": runtime.threads,
        "runtime": runtime.name,
        "allocator": "freed memory kept" if keep_freed_memory() else "as it comes",
        "dtype": "float32",
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            **runtime.versions,
        },
    }


class _Runner:
    """A network that is ready to be timed on `example`, call by call."""

    def __init__(self, call: Call, example: Tensor) -> None:
        self._call = call
        self._time = _time_cuda if example.is_cuda else _time_cpu
        with torch.inference_mode():
            call()  # the first call allocates and chooses kernels
            typical = self._time(call)
        self._calls = max(1, min(25, math.ceil(TURN_MS / max(typical, 1e-6))))
        self._warms = typical < WARM_BELOW_MS

    def turn(self) -> list[float]:
        """Milliseconds of each call of one turn."""
        with torch.inference_mode():
            if self._warms:
                self._call()
            return [self._time(self._call) for _ in range(self._calls)]


@contextmanager
def _threads(runtime: Runtime) -> Iterator[None]:
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


def _timing(turns: Sequence[Sequence[float]]) -> Timing:
    calls = sorted(call for turn in turns for call in turn)
    p10, p50, p90 = (calls[round(share * (len(calls) - 1))] for share in (0.1, 0.5, 0.9))
    return Timing(p50, p10, p90, len(calls))


def _ratio(turns: Sequence[Sequence[float]], dense: Sequence[Sequence[float]]) -> Ratio:
    rounds = [
        statistics.median(turn) / statistics.median(reference)
        for turn, reference in zip(turns, dense, strict=True)
    ]
    low, high = median_interval(rounds)
    return Ratio(statistics.median(rounds), low, high)


def _processor() -> str:
    """The CPU by the name it gives itself, else by its architecture."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
