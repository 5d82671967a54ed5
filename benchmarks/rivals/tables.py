"""The table of the records `rivals-NAME`."""

from collections.abc import Sequence
from typing import Any

from benchmarks.rivals.rows import Row

HEADINGS = (
    "rival",
    "speedup",
    "points lost",
    "points lost, confirmed",
    "kept",
    "evaluations",
    "CPU seconds",
    "to estimation's speedup",
    "speedup after 10, 20, 50",
)
SHOWN = ("10", "20", "50")


def tables(rows: Sequence[Row]) -> list[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """One, the fastest first; a row that is faster than ours stays above it."""
    ordered = sorted(rows, key=lambda row: -row["speedup"])
    return [(HEADINGS, [_cells(row) for row in ordered])]


def _cells(row: Row) -> tuple[str, ...]:
    name, speedup = row["rival"], f"{row['speedup']:.2f}x"
    if row["kind"] == "ours":
        name = f"**{name}**"
    if row["seeds"] > 1:
        speedup += f" ({row['speedup_least']:.2f} to {row['speedup_most']:.2f})"
    return (
        name,
        speedup,
        _number(row["loss"]),
        _number(row["confirmed_loss"]),
        f"{row['kept']} of {row['seeds']}",
        f"{row['evaluations']:g}",
        f"{row['seconds']:,.0f}",
        "never" if row["to_estimation"] is None else f"{row['to_estimation']:g}",
        ", ".join(f"{row['any_time'][count]:.2f}" for count in SHOWN),
    )


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.2f}"
