"""Rows by searching: the product's parts, with whatever strategy an entry names."""

import time
from pathlib import Path

from benchmarks.case import Case
from benchmarks.paper.entry import Entry
from benchmarks.paper.row import Delivered, Row, asked, dense_row, row
from benchmarks.rivals.contest import run
from benchmarks.rivals.evaluation import Points
from benchmarks.rivals.journal import Journal
from search.confirmation import confirm
from search.progress import silent
from search.subject import Subject
from search.surrogate import foretold, surrogate
from search.widths import analyse_all


def searched(case: Case, entry: Entry, data_root: Path, journal: Path) -> list[Row]:
    """The row of an entry, and before it that of the dense network.

    Args:
        case: the network.
        entry: what is asked of it.
        data_root: the folder of the larger sets.
        journal: what was evaluated, here and in an earlier run.

    Raises:
        DataError: the data are not there.
    """
    begun = time.monotonic()
    config = entry.config
    subject = Subject.prepare(case.load(), case.arrays(data_root), config, {})
    table = analyse_all(subject, config, silent)
    points = Points(subject, table, Journal(journal))
    ended = run(entry.strategy(table), points, entry.max_evaluations)
    confirmation = confirm(subject, table, config, ended.candidates)
    chosen, choices = table.of(confirmation.point)
    found = Delivered(
        model=confirmation.model,
        parameters=chosen.parameters(choices),
        macs=chosen.macs(choices),
        evaluations=len(ended.candidates),
        seconds=time.monotonic() - begun,
        plan=str(confirmation.plan),
    )
    who = {"method": entry.method, "kind": entry.kind, **asked(subject)}
    of_search = {
        "verdict": confirmation.verdict,
        "surrogate": surrogate(table, ended.candidates),
        "foretold": foretold(table, ended.candidates),
    }
    return [dense_row(subject), row(subject, who, found) | of_search]
