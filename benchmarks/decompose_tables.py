"""The tables of the record `decompose`."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]

RIVAL = (
    "kernel",
    "method",
    "share",
    "ranks",
    "seconds",
    "tensorly",
    "times faster",
    "error",
    "tensorly",
    "term energy",
    "tensorly",
)
ALL_RANKS = ("kernel", "method", "norm", "ranks", "all, seconds", "greatest, seconds", "ratio")
MEMORY = ("kernel", "method", "norm", "ranks", "peak, MiB", "estimated, MiB")
ACTIVATIONS = ("network", "method", "cases", "lower", "median data-aware / plain", "most")


def tables(rows: Sequence[Row]) -> list[Table]:
    """One for each kind of row."""
    names = ("rival", "all ranks", "memory")
    kinds = {kind: [r for r in rows if r["kind"] == kind] for kind in names}
    memory = [(MEMORY, [_memory(row) for row in kinds["memory"]])] if kinds["memory"] else []
    return [
        (RIVAL, [_rival(row) for row in kinds["rival"]]),
        (ALL_RANKS, [_all_ranks(row) for row in kinds["all ranks"]]),
        *memory,
        (ACTIVATIONS, _activations([row for row in rows if row["kind"] == "activations"])),
    ]


def _rival(row: Row) -> tuple[str, ...]:
    ours, theirs = row["ours"], row["tensorly"]
    return (
        row["kernel"],
        row["method"],
        f"1/{round(1 / row['parameter_share'])}",
        ", ".join(map(str, row["ranks"])),
        *(f"{each['seconds']:.3g}" for each in (ours, theirs)),
        f"{row['times_faster']:.1f}x",
        *(f"{each['error']:.4f}" for each in (ours, theirs)),
        *(f"{each['term_energy']:.2f}" if "term_energy" in each else "" for each in (ours, theirs)),
    )


def _all_ranks(row: Row) -> tuple[str, ...]:
    return (
        row["kernel"],
        row["method"],
        "data" if row["data_aware"] else "plain",
        str(row["count"]),
        *(f"{row[which]['seconds']:.3g}" for which in ("all", "one")),
        f"{row['ratio']:.2f}",
    )


def _memory(row: Row) -> tuple[str, ...]:
    return (
        row["kernel"],
        row["method"],
        "data" if row["data_aware"] else "plain",
        ", ".join(map(str, row["ranks"])),
        str(row["mebibytes"]),
        str(row["estimated_mebibytes"]),
    )


def _activations(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Cases of one network and one method together."""
    found = []
    for network, method in dict.fromkeys((row["network"], row["method"]) for row in rows):
        ratios = [
            row["data_aware"] / row["plain"]
            for row in rows
            if (row["network"], row["method"]) == (network, method)
        ]
        lower = sum(ratio < 1 for ratio in ratios)
        figures = (f"{each:.3f}" for each in (statistics.median(ratios), max(ratios)))
        found.append((network, method, str(len(ratios)), str(lower), *figures))
    return found
