"""The rows of the demo's table: one for the dense network, one for each result."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from service.schemas import JobOut


def dense_row(
    race: Mapping[str, Any], samples: int, baseline: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What all others are compared with."""
    assert baseline is not None
    return {
        "network": "dense",
        "accuracy": 100 * race["dense_right"] / samples,
        "accuracy_at_least": None,
        "latency_ms": race["timings"]["dense"],
        "speedup": 1.0,
        "speedup_low": 1.0,
        "speedup_high": 1.0,
        "speedup_as_it_comes": 1.0,
        "speedup_promised": 1.0,
        "parameters": baseline["parameters"],
        "macs": baseline["macs"],
        "evaluations": None,
        "seconds": None,
        "verdict": None,
    }


def result_row(
    name: str, job: JobOut, result: Path, race: Mapping[str, Any], right: Mapping[str, int]
) -> dict[str, Any]:
    """A job's result: accuracy as strangers found it, latency as the final race found it.

    The bound of the accuracy is the one that the job promises: dense, less the upper bound of the
    paired loss. `speedup_promised` is the job's own; `speedup_as_it_comes` is that of a process
    that did not call `keep_freed_memory`.
    """
    evidence = json.loads((result / "manifest.json").read_text())["evidence"]
    found = evidence["result"] or evidence["dense"]  # the dense network where nothing is gained
    loss = found.get("loss", {"value": 0.0, "upper": 0.0})
    percent = 100 / evidence["splits"]["confirmation"]
    dense = percent * race["dense_right"]
    ratio = race["ratios"][name]
    assert job.started_at is not None
    assert job.finished_at is not None
    return {
        "network": name,
        "accuracy": percent * right["load.py"],
        "accuracy_at_least": dense - loss["upper"],
        "loss": loss,
        "stranger_differs": max(abs(dense - loss["value"] - percent * n) for n in right.values()),
        "latency_ms": race["timings"][name],
        "speedup": 1 / ratio["median"],
        "speedup_low": 1 / ratio["high"],
        "speedup_high": 1 / ratio["low"],
        "speedup_as_it_comes": 1 / race["as_it_comes"][name]["median"],
        "speedup_promised": found.get("speedup", 1.0),
        "parameters": found["parameters"],
        "macs": found["macs"],
        "evaluations": sum(job.counts.values()),
        "seconds": round((job.finished_at - job.started_at).total_seconds(), 1),
        "verdict": job.verdict,
    }


def show(rows: Iterable[Mapping[str, Any]], console: Console, confidence: float | None) -> None:
    """Print the table."""
    bound = f"at least ({confidence:.0%})" if confidence else "at least"
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("network")
    for heading in ("accuracy", bound, "p50 ms", "p10-p90", "speedup", "malloc as is"):
        table.add_column(heading, justify="right")
    for heading in ("parameters", "MACs"):
        table.add_column(heading, justify="right")
    for heading in ("evaluations", "seconds"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for row in rows:
        latency, least = row["latency_ms"], row["accuracy_at_least"]
        table.add_row(
            row["network"],
            f"{row['accuracy']:.2f} %",
            "" if least is None else f"{least:.2f} %",
            f"{latency['p50_ms']:.3f}",
            f"{latency['p10_ms']:.3f}-{latency['p90_ms']:.3f}",
            f"{row['speedup']:.2f}x",
            f"{row['speedup_as_it_comes']:.2f}x",
            f"{row['parameters']:,}",
            f"{row['macs']:,}",
            *("" if row[key] is None else str(row[key]) for key in ("evaluations", "seconds")),
            row["verdict"] or "",
        )
    console.print(table)
