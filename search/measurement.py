"""Honest timing: networks interleaved in random order, medians with their spread.

The same layer drifts by half within an hour, and whoever runs beside us disturbs one network and
not the other. So nothing is compared with yesterday's figure: each round runs every network once,
in an order drawn anew, and two networks are compared by the ratio of their times within a round.
Two copies of one network differ too, by up to 4 % for as long as both live: by where their weights
came to lie. So a race has heats, each of instances made anew in an order of its own, and how far
apart the heats are says how far a ratio is to be trusted (decision 0020).
What a process freed before decides whether glibc keeps the memory of a call for the next one or has
it made anew, which can double a fast network's time. So all processes keep it (decision 0005).
"""

import math
import platform
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.load import keep_freed_memory
from search.runtimes.runtime import Instances, Layout, Runtime
from search.stopwatch import Stopwatch, computing

HEATS = 9  # of these the second and the last but one enclose the median with 96 %
MOST_ROUNDS = 101  # of a heat, or of layers
HOPELESS = 1.3  # what is this much slower than another form of it is not timed again


@dataclass(frozen=True, slots=True)
class Timing:
    """Single calls of one network: median, 10th and 90th percentile, number."""

    p50_ms: float
    p10_ms: float
    p90_ms: float
    n: int


@dataclass(frozen=True, slots=True)
class Ratio:
    """T / T_dense within a round: the median of the heats with its 95 % interval."""

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

    There are nine heats, each with instances of the networks made anew in memory of their own.
    Where `layouts` does not know in which memory layout a network is timed it is timed in each,
    and the one that is the faster counts. Rounds of a heat go on until its share of `seconds` is
    spent, but there is one at least.

    Args:
        networks: in eval mode, on the device of `example`; left as they are.
        example: the input, at the batch size that counts.
        runtime: and its threads; torch's own number is restored afterwards.
        seconds: what the rounds may take together.
        layouts: of networks that were timed before.
        seed: of the order within the rounds.
        keep_freed: what is freed is kept for the next call, as `compress.load.keep_freed_memory`
            has it, in this process from now on. False leaves the C library as it is.
    """
    if keep_freed:
        keep_freed_memory()
    known = layouts or {}
    entries = [
        (name, layout)
        for name, network in networks.items()
        for layout in ([known[name]] if name in known else runtime.layouts(network, example))
    ]
    shuffler, heats = random.Random(seed), list[_Heat]()
    with computing(runtime):
        made = {name: runtime.prepare(network, example) for name, network in networks.items()}
        for _ in range(HEATS):
            heats.append(_heat(made, entries, example, seconds / HEATS, shuffler))
            entries = [entry for entry in entries if not _is_hopeless(entry, heats[0])]
    chosen = {name: _faster(name, entries, heats) for name in networks}
    ratios = {name: _ratio(heats, chosen[name], chosen["dense"]) for name in networks}
    del ratios["dense"]
    return Race(
        timings={name: _timing(heats, entry) for name, entry in chosen.items()},
        ratios=ratios,
        layouts=dict(chosen.values()),
        runtime=runtime.name,
        rounds=sum(len(heat[chosen["dense"]]) for heat in heats),
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
    with computing(runtime):
        watches = {
            name: Stopwatch(runtime.prepare(layer, example)(layout), example)
            for name, layer in layers.items()
        }
        dense_turns: list[float] = []
        ratios: dict[str, list[float]] = {name: [] for name in layers}
        names = list(layers)
        rounds, end = 0, time.perf_counter() + seconds
        while rounds < 3 or (time.perf_counter() < end and rounds < MOST_ROUNDS):
            shuffler.shuffle(names)
            turns = {name: statistics.median(watches[name].turn()) for name in names}
            dense_turns.append(turns["dense"])
            for name, turn in turns.items():
                ratios[name].append(turn / turns["dense"])
            names = [name for name in names if ratios[name][0] < HOPELESS]
            rounds += 1
    dense_ms = statistics.median(dense_turns)
    return {name: dense_ms * statistics.median(ratios[name]) for name in layers}


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


_Entry = tuple[str, Layout]
_Heat = dict[_Entry, list[list[float]]]
"""Of each network in each layout the turns, milliseconds of single calls."""


def _heat(
    made: Mapping[str, Instances],
    entries: Sequence[_Entry],
    example: Tensor,
    seconds: float,
    shuffler: random.Random,
) -> _Heat:
    """Rounds of new instances, which are made in an order drawn anew too."""
    order = shuffler.sample(entries, len(entries))
    watches = {entry: Stopwatch(made[entry[0]](entry[1]), example) for entry in order}
    turns: _Heat = {entry: [] for entry in entries}
    end = time.perf_counter() + seconds
    rounds = 0
    while not rounds or (time.perf_counter() < end and rounds < MOST_ROUNDS):
        shuffler.shuffle(order)
        for entry in order:
            turns[entry].append(watches[entry].turn())
        rounds += 1
    return turns


def _typical(turns: Sequence[Sequence[float]]) -> float:
    return statistics.median(statistics.median(turn) for turn in turns)


def _is_hopeless(entry: _Entry, heat: _Heat) -> bool:
    """Whether the network is far slower in this layout than in another."""
    least = min(_typical(turns) for (name, _), turns in heat.items() if name == entry[0])
    return _typical(heat[entry]) > HOPELESS * least


def _faster(name: str, entries: Sequence[_Entry], heats: Sequence[_Heat]) -> _Entry:
    """The network in the layout that is the faster over all heats."""
    return min(
        (entry for entry in entries if entry[0] == name),
        key=lambda entry: _typical(list(chain.from_iterable(heat[entry] for heat in heats))),
    )


def _timing(heats: Sequence[_Heat], entry: _Entry) -> Timing:
    calls = sorted(call for heat in heats for turn in heat[entry] for call in turn)
    p10, p50, p90 = (calls[round(share * (len(calls) - 1))] for share in (0.1, 0.5, 0.9))
    return Timing(p50, p10, p90, len(calls))


def _ratio(heats: Sequence[_Heat], entry: _Entry, dense: _Entry) -> Ratio:
    ratios = [
        statistics.median(
            statistics.median(turn) / statistics.median(reference)
            for turn, reference in zip(heat[entry], heat[dense], strict=True)
        )
        for heat in heats
    ]
    low, high = median_interval(ratios)
    return Ratio(statistics.median(ratios), low, high)


def _processor() -> str:
    """The CPU by the name it gives itself, else by its architecture."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
