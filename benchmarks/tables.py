"""The tables of the README and of docs/results.md, made from the result files: `make results`.

A page asks for a table by a pair of comments, `<!-- results: NAME -->` and `<!-- end -->`; what
stands between them is written from benchmarks/results/NAME.json and never by hand.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks import decompose_tables
from benchmarks.paper import tables as paper_tables
from benchmarks.record import RESULTS, ROOT
from benchmarks.recurrent import tables as recurrent_tables
from benchmarks.rivals import tables as rivals_tables

Tables = list[tuple[tuple[str, ...], list[tuple[str, ...]]]]
"""Headings, and the cells of each row."""

PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md")
PLACE = re.compile(r"(<!-- results: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

DEMO_HEADINGS = (
    "network",
    "accuracy",
    "at least (95 %)",
    "p50 (p10 to p90) ms",
    "speedup",
    "malloc as it is",
    "parameters",
    "MACs",
    "full evaluations",
    "seconds",
    "verdict",
)

# Beginning of a record's name -> what there are n of, where it is not rounds of a race.
REPEATED = {
    "noise": "races of each row",
    "promise": "searches of each row, fewer where they are genetic",
    "recurrent-accuracy": "seeds",
    "rivals-": "runs of what draws by chance",
}
ROUNDS = "interleaved rounds"

# Beginning of a record's name -> what makes its tables.
TABLES: dict[str, Callable[[list[dict[str, Any]]], Tables]] = {
    "decompose": decompose_tables.tables,
    "paper-": paper_tables.tables,
    "recurrent-accuracy": recurrent_tables.accuracy_tables,
    "recurrent-cost": recurrent_tables.cost_tables,
    "rivals-": rivals_tables.tables,
}

# Record -> the fields of its rows that make a table as they are.
FIELDS = {
    "efficientnet-lite": (
        *("network", "runtime", "batch", "lost", "lost_at_most", "allowed"),
        *("speedup", "speedup_low", "speedup_high", "layers_factorised", "evaluations", "verdict"),
    ),
    "formats": (
        *("architecture", "parameters", "layers", "read_equal", "read_seconds"),
        *("weights_error", "program_error", "graph_error"),
        *("weights_bytes", "program_bytes", "graph_bytes"),
        *("weights_seconds", "program_seconds", "graph_seconds", "older_loads", "failure"),
    ),
    "hostile": (
        "form",
        "changed",
        "files",
        "refused",
        "read",
        "limit",
        "ended_in_its_trial",
        "ended",
        "foreign",
        "executed",
        "largest_mb",
    ),
    "mutation": ("file", "was", "becomes", "killed"),
    "noise": (
        *("network", "runtime", "batch", "races", "called_faster", "called_slower"),
        *("least", "greatest", "half_width"),
    ),
    "promise": (
        *("setting", "strategy", "searches", "met", "broken", "broken_share"),
        *("broken_share_at_most", "broken_of_met", "speedup", "best_speedup", "evaluations"),
        "samples_seen",
    ),
    "sequences": (
        *("states", "batch", "verdict", "dense_top1", "stranger_top1", "dense_latency_ms"),
        *("speedup", "speedup_low", "speedup_high", "dense_recurrent", "recurrent", "seconds"),
    ),
    "zoo": ("network", "parameters", "layers", "refused", "factorised", "fault"),
}


def main() -> None:
    """Write every page anew."""
    for page in PAGES:
        page.write_text(filled(page.read_text()))


def filled(text: str) -> str:
    """`text` with each of its places filled from its result file."""
    return PLACE.sub(lambda place: place[1] + section(place[2]) + place[3], text)


def section(name: str) -> str:
    """The table of one result file, the circumstances under it, and the targets it missed."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return "(not measured yet)\n"
    record = json.loads(path.read_text())
    rows = record["rows"]
    made = next((make for start, make in TABLES.items() if name.startswith(start)), None)
    if made is not None:
        found = made(rows)
    elif name in FIELDS:
        fields = FIELDS[name]
        found = [(fields, [tuple(_told(row[field]) for field in fields) for row in rows])]
    else:
        found = [(DEMO_HEADINGS, [_cells(row) for row in rows])]
    lines = []
    for headings, cells in found:
        lines += ["| " + " | ".join(row) + " |" for row in (headings, ("---",) * len(headings))]
        lines += [*("| " + " | ".join(row) + " |" for row in cells), ""]
    lines += [_circumstances(name, record)]
    for target in record["targets"]:
        if not target["met"]:
            lines += [
                "",
                f"Missed: {target['name']} was {target['value']}, not {target['target']}.",
            ]
    return "\n".join(lines) + "\n"


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    latency, least = row["latency_ms"], row["accuracy_at_least"]
    speedup = f"{row['speedup']:.2f}x"
    if row["verdict"] is not None:
        speedup += f" ({row['speedup_low']:.2f} to {row['speedup_high']:.2f})"
    return (
        row["network"],
        f"{row['accuracy']:.2f} %",
        "" if least is None else f"{least:.2f} %",
        f"{latency['p50_ms']:.2f} ({latency['p10_ms']:.2f} to {latency['p90_ms']:.2f})",
        speedup,
        f"{row['speedup_as_it_comes']:.2f}x",
        f"{row['parameters']:,}",
        f"{row['macs']:,}",
        *("" if row[key] is None else str(row[key]) for key in ("evaluations", "seconds")),
        row["verdict"] or "",
    )


def _told(value: Any) -> str:
    """A value in a cell of a table."""
    if isinstance(value, str):
        return f"`{value.replace('|', chr(92) + '|')}`"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else f"{value:,}"


def _circumstances(name: str, record: Mapping[str, Any]) -> str:
    hardware, versions = record["hardware"], record["versions"]
    where = _of_rows(record, "processor", hardware.get("gpu") or hardware["processor"])
    commits = _of_rows(record, "commit", record["commit"])
    repeated = next((n for start, n in REPEATED.items() if name.startswith(start)), ROUNDS)
    rounds = f"n = {record['n']} {repeated}; " if record["n"] > 1 else ""
    return (
        f"{' and '.join(where)}, {hardware['cores']} cores, {record['threads']} thread; torch "
        f"{versions['torch']}; {rounds}"
        f"{record['seconds']:g} s in all; "
        f"`{record['command']}` at commit{'s' * (len(commits) > 1)} {', '.join(commits)}."
    )


def _of_rows(record: Mapping[str, Any], name: str, whole: str) -> list[str]:
    """What the rows say for themselves, each once; else what holds for the whole record."""
    return [*dict.fromkeys(str(row[name]) for row in record["rows"] if name in row)] or [str(whole)]


if __name__ == "__main__":
    main()
