"""What the rivals are to show on a network."""

from collections.abc import Sequence

from benchmarks.record import Target
from benchmarks.rivals.rows import Row


def targets(rows: Sequence[Row]) -> list[Target]:
    """What was wished for, of the rows of one network.

    Where no rival was ever as fast, it counts as if one had been at its end: a lower bound. A
    speedup of ours whose budget did not hold is none.
    """
    by = {row["rival"]: row for row in rows}
    estimation, genetic, plain = by["estimation"], by["genetic"], by["plain DEAP"]
    gain = genetic["speedup"] / estimation["speedup"]
    searches = [row for row in rows if row["kind"] == "search"]
    reached = [row["to_estimation"] for row in searches if row["to_estimation"]]
    asked = min(reached) if reached else max(row["evaluations"] for row in searches)
    plain_asked, genetic_asked = (
        row["to_genetic"] or row["evaluations"] for row in (plain, genetic)
    )
    return [
        Target("evaluations of estimation", "<=", 10, estimation["evaluations"]),
        Target("speedup of estimation / of the best rival that keeps the budget", ">=", 1.0,
               round(estimation["speedup"] / _best_rival(rows), 3) if _kept(estimation) else None),
        Target("evaluations of the best search to estimation's speedup / of estimation", ">=", 10,
               round(asked / estimation["evaluations"], 1)),
        Target("speedup of genetic / of estimation", ">=", 1.0, round(gain, 3)),
        Target("evaluations of plain DEAP / of genetic to genetic's speedup", ">=", 5,
               round(plain_asked / genetic_asked, 1)),
    ]  # fmt: skip


def _best_rival(rows: Sequence[Row]) -> float:
    """Of those whose budget held on the confirmation split in most of their runs; else dense."""
    rivals = [row for row in rows if row["kind"] != "ours" and _kept(row)]
    return max((row["speedup"] for row in rivals), default=1.0)


def _kept(row: Row) -> bool:
    return 2 * row["kept"] > row["seeds"]
