"""What the rows of a network are to show."""

import statistics
from collections.abc import Iterator, Sequence

from benchmarks.case import CIFAR10, MNIST, Case
from benchmarks.paper.entry import BEST
from benchmarks.paper.row import Row
from benchmarks.record import Target
from search.surrogate import Pair, rank_correlation

# Network -> (points that may be lost, setting, least speed-up): the paper's figures as ratios
# first, then what is wished for beyond them.
WANTED = {
    MNIST.name: (
        (0.35, "onnxruntime 1", 5.10),
        (0.35, "onnxruntime 64", 5.10),
        (0.35, "onnxruntime 1", 8.0),
    ),
    CIFAR10.name: (
        (5.13, "onnxruntime 1", 1.80),
        (1.0, "onnxruntime 1", 4.0),
        (1.0, "onnxruntime 64", 3.0),
    ),
}
CORRELATION = 0.9  # Spearman's, over the candidates of a row
AHEAD = 1.2  # of every rival at the same recovery
ASKED = ("budget", "runtime", "batch", "recovery", "processor")


def targets(case: Case, rows: Sequence[Row]) -> list[Target]:
    """Of all rows of one network; those that broke their budget count for none."""
    found = [
        Target(
            f"speedup in {setting} at <= {max_loss:g} points",
            ">=",
            wanted,
            _fastest(rows, "ours", max_loss, setting),
        )
        for max_loss, setting, wanted in WANTED.get(case.name, ())
    ]
    for name in ("loss", "latency"):
        told = [row["surrogate"][name] for row in rows if row.get("surrogate")]
        known = [each for each in told if each is not None]
        found.append(
            Target(
                f"median rank correlation of predicted with measured {name}",
                ">=",
                CORRELATION,
                round(statistics.median(known), 3) if known else None,
            )
        )
        pooled = rank_correlation(_foretold(rows, name))
        found.append(
            Target(
                f"rank correlation of predicted with measured {name}, candidates of all searches",
                ">=",
                CORRELATION,
                None if pooled is None else round(pooled, 3),
            )
        )
    found += _genetic(rows)
    rivals = [row for row in rows if row["kind"] == "rival"]
    for row in rivals:
        ours_too = (each for each in rows if each["kind"] == "ours")
        alike = [
            r for r in ours_too if all(r[key] == row[key] for key in ("recovery", "processor"))
        ]
        ours = _fastest(alike, "ours", row["budget"], "onnxruntime 1")
        theirs = _fastest(
            [r for r in rivals if r["recovery"] == row["recovery"]],
            "rival",
            row["budget"],
            "onnxruntime 1",
        )
        alike_how = "varied pictures for both" if _is_varied(row) else "trained alike"
        found.append(
            Target(
                f"speedup / of {row['method']} at <= {row['budget']:g} points, {alike_how}",
                ">=",
                AHEAD,
                round(ours / theirs, 3) if ours and theirs else ours,
            )
        )
    return found


def _is_varied(row: Row) -> bool:
    return bool(row["recovery"]) and any(row["recovery"]["augment"].values())


def _foretold(rows: Sequence[Row], name: str) -> list[Pair]:
    """Of all candidates that were not trained, in the setting where most was asked.

    A search ends among plans that are nearly alike, whose order is up to the noise; all together
    they are what the table had to tell apart.
    """
    return [
        (predicted, measured)
        for row in rows
        if "foretold" in row and not row["recovery"] and (row["runtime"], row["batch"]) == BEST
        for predicted, measured in row["foretold"][name]
    ]


def _genetic(rows: Sequence[Row]) -> Iterator[Target]:
    """What the generations add to the estimation that they begin with, where both ran."""
    ours = [row for row in rows if row["kind"] == "ours"]
    by = {(row["method"], *(str(row[key]) for key in ASKED)): row for row in ours}
    for (method, *asked), row in by.items():
        begun = by.get(("estimation", *asked))
        if method == "genetic" and begun:
            setting = f"{row['runtime']} {row['batch']}"
            speeds = [each["speedups"][setting]["speedup"] for each in (row, begun)]
            yield Target(
                f"speedup of genetic / of estimation in {setting} at <= {row['budget']:g} points",
                ">=",
                1.0,
                round(speeds[0] / speeds[1], 3) if row["kept"] else None,
            )


def _fastest(rows: Sequence[Row], kind: str, max_loss: float, setting: str) -> float | None:
    """In a setting, of the networks that lost no more than that on the confirmation split.

    A plan that several rows came to was raced as often: the median of its races counts, since the
    greatest would be the luckiest.
    """
    races: dict[str, list[float]] = {}
    for row in rows:
        if row["kind"] == kind and row["drop"] <= max_loss and row["kept"]:
            races.setdefault(row["plan"], []).append(row["speedups"][setting]["speedup"])
    return max((round(statistics.median(each), 3) for each in races.values()), default=None)
