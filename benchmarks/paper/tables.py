"""The table of the records `paper-NAME`."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.paper.entry import SETTINGS
from benchmarks.paper.row import Row

HEADINGS = (
    "method",
    "may lose",
    "chosen for",
    "trained",
    "accuracy",
    "points lost (at most, 95 %)",
    *(f"{runtime}, batch {batch}" for runtime, batch in SETTINGS),
    "parameters",
    "MACs",
    "evaluations",
    "Spearman: loss, time",
    "seconds",
    "measured on",
)


def tables(rows: Sequence[Row]) -> list[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """One, in the order in which everything was asked."""
    return [(HEADINGS, [_cells(row) for row in rows])]


def _cells(row: Row) -> tuple[str, ...]:
    accuracy = f"{row['accuracy']:.2f} %"
    size = (f"{row['parameters']:,}", f"{row['macs']:,}")
    if row["kind"] == "dense":
        none, same = ("",) * 3, ("1.00x",) * len(SETTINGS)
        return (row["method"], *none, accuracy, "", *same, *size, *none, "")
    recovery, name = row["recovery"], row["method"]
    lost = f"{row['drop']:.2f} ({row['drop_at_most']:.2f})"
    return (
        f"**{name}**" if row["kind"] == "ours" else name,
        f"{row['budget']:g}",
        f"{row['runtime']}, batch {row['batch']}",
        _trained(recovery) if recovery else "",
        accuracy,
        lost if row["kept"] else f"{lost}: too much",
        *(_speedup(row["speedups"][f"{runtime} {batch}"]) for runtime, batch in SETTINGS),
        *size,
        str(row["evaluations"]),
        _correlation(row.get("surrogate")),
        f"{row['seconds']:.0f}",
        f"{row['processor']} at {row['commit'][:7]}" if "processor" in row else "",
    )


def _trained(recovery: Mapping[str, Any]) -> str:
    varied = ", pictures varied" if any(recovery["augment"].values()) else ""
    return f"{recovery['method']}, {recovery['max_seconds']:g} s{varied}"


def _speedup(found: dict[str, float]) -> str:
    return f"{found['speedup']:.2f}x ({found['low']:.2f} to {found['high']:.2f})"


def _correlation(found: Mapping[str, float | None] | None) -> str:
    """Of predicted with measured; none of older rows, and of too few candidates."""
    known = [found[name] for name in ("loss", "latency")] if found else []
    return ", ".join("-" if each is None else f"{each:.2f}" for each in known)
