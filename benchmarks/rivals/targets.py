"""What the rivals are to show, network by network; the worst network counts."""

from collections.abc import Iterator, Sequence

from benchmarks.record import Target
from benchmarks.rivals.rows import Row


def targets(rows: Sequence[Row]) -> list[Target]:
    """What was wished for. Where no rival was ever as fast, it counts as if one had been at its end,
    which makes the figure a lower bound."""
    met = list(_networks(rows))
    if not met:
        return []
    ours = [by["estimation"] for by in met]
    return [
        Target("evaluations of estimation, most", "<=", 10,
               max(row["evaluations"] for row in ours)),
        Target("speedup of estimation / of the best rival that keeps the budget, least", ">=", 1.0,
               round(min(by["estimation"]["speedup"] / _best_rival(by) for by in met), 3)),
        Target("evaluations of the best search to estimation's speedup / of estimation, least",
               ">=", 10, round(min(_economy(by) for by in met), 1)),
        Target("speedup of genetic / of estimation, least", ">=", 1.0,
               round(min(_gain(by) for by in met), 3)),
        Target("speedup of genetic / of estimation, most", ">=", 1.01,
               round(max(_gain(by) for by in met), 3)),
        Target("evaluations of plain DEAP / of genetic to genetic's speedup, least", ">=", 5,
               round(min(_lead(by) for by in met), 1)),
    ]  # fmt: skip


def _networks(rows: Sequence[Row]) -> Iterator[dict[str, Row]]:
    for network in dict.fromkeys(row["network"] for row in rows):
        yield {row["rival"]: row for row in rows if row["network"] == network}


def _best_rival(by: dict[str, Row]) -> float:
    """Of those whose budget held on the confirmation split in most of their runs; else dense."""
    rivals = (row for row in by.values() if row["kind"] != "ours")
    return max((row["speedup"] for row in rivals if 2 * row["kept"] > row["seeds"]), default=1.0)


def _economy(by: dict[str, Row]) -> float:
    searches = [row for row in by.values() if row["kind"] == "search"]
    reached = [row["to_estimation"] for row in searches if row["to_estimation"]]
    asked = min(reached) if reached else max(row["evaluations"] for row in searches)
    return asked / by["estimation"]["evaluations"]


def _gain(by: dict[str, Row]) -> float:
    return by["genetic"]["speedup"] / by["estimation"]["speedup"]


def _lead(by: dict[str, Row]) -> float:
    plain, genetic = (
        row["to_genetic"] or row["evaluations"] for row in (by["plain DEAP"], by["genetic"])
    )
    return plain / genetic
