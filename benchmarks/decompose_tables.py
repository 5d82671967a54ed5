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

METRICS = ("what", "network", "method", "cases", "lower", "median ratio", "most")
# kind of row -> what is compared, and with what
COMPARED = {
    "few samples": ("shrunk", "unshrunk"),
    "modes": ("modes", "plain"),
    "sides": ("loss", "output"),
}


def tables(rows: Sequence[Row]) -> list[Table]:
    """One for each kind of row that is there."""

    def of(kind: str) -> list[Row]:
        return [row for row in rows if row["kind"] == kind]

    found: list[Table] = [
        (RIVAL, [_rival(row) for row in of("rival")]),
        (ALL_RANKS, [_all_ranks(row) for row in of("all ranks")]),
        (MEMORY, [_memory(row) for row in of("memory")]),
        (ACTIVATIONS, _activations(of("activations"))),
        (METRICS, [each for kind in COMPARED for each in _metrics(kind, rows)]),
    ]
    return [(headings, cells) for headings, cells in found if cells]


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
    return [(*which, *_ratios(cases, "data_aware", "plain")) for which, cases in _cases(rows)]


def _metrics(kind: str, rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """As `_activations`, of another comparison."""
    one, other = COMPARED[kind]
    return [
        (f"{kind}: {one} / {other}", *which, *_ratios(cases, one, other))
        for which, cases in _cases([row for row in rows if row["kind"] == kind])
    ]


def _cases(rows: Sequence[Row]) -> list[tuple[tuple[str, str], list[Row]]]:
    cases: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        cases.setdefault((row["network"], row["method"]), []).append(row)
    return [*cases.items()]


def _ratios(rows: Sequence[Row], one: str, other: str) -> tuple[str, ...]:
    ratios = [row[one] / row[other] for row in rows]
    lower = sum(ratio < 1 for ratio in ratios)
    figures = (f"{each:.3f}" for each in (statistics.median(ratios), max(ratios)))
    return str(len(ratios)), str(lower), *figures
