"""What the runs of an entrant on one network come to, as a row of the record."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.rivals.contest import Run, median
from benchmarks.rivals.delivery import Delivery
from search.strategy import Candidate

ANY_TIME = (1, 2, 5, 10, 20, 50, 100)  # evaluations after which the best so far is told
TOLERANCE = 0.05  # of a speed-up: within it two are the same, as two timings of one network are
MARKS = ("estimation", "genetic")  # whose speed-ups the others are held against

Row = dict[str, Any]


Given = tuple[Candidate, Delivery]
"""A finalist, and what came of it."""


def row(who: Mapping[str, str], runs: Sequence[Run], given: Sequence[Given | None]) -> Row:
    """Medians over the seeds; a run that found nothing delivers the dense network.

    Args:
        who: network, rival, and kind of rival.
        runs: one for each seed.
        given: what each run delivered.
    """
    speedups = [each[1].speedup if each else 1.0 for each in given]
    kept = [each for each in given if each and each[1].verdict == "budget_met"]
    return {
        **who,
        "seeds": len(runs),
        "evaluations": median([float(len(each.candidates)) for each in runs]),
        "seconds": round(median([each.seconds for each in runs]) or 0.0, 1),
        "found": sum(each is not None for each in given),
        "kept": len(kept),
        "loss": median([100 * each[0].costs.loss for each in given if each]),
        "confirmed_loss": median([each[1].confirmation["value"] for each in given if each]),
        "speedup": median(speedups),
        "speedup_least": min(speedups),
        "speedup_most": max(speedups),
        "any_time": {str(n): median([each.speedup_after(n) for each in runs]) for n in ANY_TIME},
    }


def marked(rows: Sequence[Row], runs: Sequence[Sequence[Run]]) -> list[Row]:
    """Rows of one network with the evaluations it took to be as fast as each of `MARKS`.

    By the timings of the search, within `TOLERANCE`; the median over the seeds, None where most
    never were. A mark that draws by chance counts by its median.
    """
    found = [dict(row) for row in rows]
    for mark in MARKS:
        ended = next(r for row, r in zip(rows, runs, strict=True) if row["rival"] == mark)
        fastest = median([each.speedup_after(len(each.candidates)) for each in ended])
        for row, each in zip(found, runs, strict=True):
            asked = [one.evaluations_to((1 - TOLERANCE) * (fastest or 1.0)) for one in each]
            row[f"to_{mark}"] = median(asked)
            row[f"reached_{mark}"] = sum(count is not None for count in asked)
    return found
