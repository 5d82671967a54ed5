"""Rivals on the same network, data, device and budget: `python -m benchmarks.rivals`.

Every entrant has the same number of evaluations, of the same choice table where it chooses ranks,
and each evaluation the same samples and the same race against dense, in CPU seconds. What was
evaluated once is kept in a journal: another rival that asks for it gets the same figures, and a run
that was stopped goes on where it was. Chance is given several seeds. At the end the fastest three
of each run meet those of all the others in one race; the fastest there is what the run delivers,
and is confirmed on images that served for nothing else.
"""

import argparse
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import torch

from benchmarks.record import RESULTS, Record
from benchmarks.rivals.clock import cpu_clock
from benchmarks.rivals.contest import Run, run
from benchmarks.rivals.delivery import delivered
from benchmarks.rivals.entrants import Entrant, entrants
from benchmarks.rivals.journal import JOURNALS, Journal
from benchmarks.rivals.meeting import MEETINGS, Meeting
from benchmarks.rivals.rows import marked, row
from benchmarks.rivals.targets import targets
from search.config import Runtime
from search.errors import DataError
from search.strategy import Candidate
from service.settings import Settings

PACKAGES = ("optuna", "torch-pruning", "fasterai", "onnxruntime")


def main() -> None:
    """Let all meet on every network that is there, and write a record for each."""
    arguments = _arguments()
    torch.set_num_threads(1)
    for meeting in MEETINGS:
        case = meeting.case
        if case.name not in arguments.networks:
            continue
        if not case.weights.exists():
            print(f"{case.name} left out: no weights, see benchmarks/train.py", flush=True)
            continue
        started_at, begun = datetime.now(UTC), time.monotonic()
        try:
            with cpu_clock():
                rows = _met(meeting, arguments)
        except DataError as error:
            print(f"{case.name} left out: {error}", flush=True)
            continue
        record = Record(
            command=_command(case.name, arguments),
            threads=1,
            n=arguments.seeds,
            started_at=started_at,
            seconds=time.monotonic() - begun,
            rows=rows,
            targets=targets(rows),
            packages=PACKAGES,
        )
        for target in record.targets:
            print(target.as_json())
        print(record.write(f"rivals-{case.name}", arguments.out), flush=True)


def _met(meeting: Meeting, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one network."""
    case = meeting.case
    kept = arguments.journal / f"{case.name}-{arguments.runtime}"
    journal = Journal(kept.with_suffix(".jsonl"))
    data_root = Settings.from_environment().data_root
    subject, table = meeting.prepare(data_root, arguments.runtime, kept.with_suffix(".table.json"))
    ended: list[tuple[Entrant, list[Run]]] = []
    for entrant in entrants(subject, table, journal):
        seeds = range(arguments.seeds if entrant.is_random else 1)
        runs = []
        for seed in seeds:
            runs.append(run(entrant.strategy(seed), entrant.evaluate, arguments.evaluations))
            print(case.name, entrant.name, seed, _told(runs[-1]), len(journal), flush=True)
        ended.append((entrant, runs))
    networks = {
        _key(entrant, finalist): entrant.evaluate.network(finalist.point)
        for entrant, runs in ended
        for each in runs
        for finalist in each.finalists
    }
    found = delivered(subject, networks)
    rows = []
    for entrant, runs in ended:
        options = [[(c, found[_key(entrant, c)]) for c in each.finalists] for each in runs]
        given = [max(each, key=lambda one: one[1].speedup, default=None) for each in options]
        who = {"network": case.network, "rival": entrant.name, "kind": entrant.kind}
        rows.append(row(who, runs, given))
    return marked(rows, [runs for _, runs in ended])


def _key(entrant: Entrant, candidate: Candidate) -> str:
    return f"{entrant.evaluate.name} {candidate.point}"


def _told(ended: Run) -> str:
    speedup = ended.speedup_after(len(ended.candidates))
    return f"{speedup:.3f}x in {len(ended.candidates)} evaluations, {ended.seconds:.0f} CPU s"


def _command(name: str, arguments: argparse.Namespace) -> str:
    return (
        f"make bench-rivals ARGUMENTS='--networks {name} "
        f"--evaluations {arguments.evaluations} --seeds {arguments.seeds} "
        f"--runtime {arguments.runtime}'"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rivals", description=__doc__)
    names = [meeting.case.name for meeting in MEETINGS]
    parser.add_argument("--networks", nargs="+", choices=names, default=names)
    parser.add_argument("--evaluations", type=int, default=100, help="of each run, at most")
    parser.add_argument("--seeds", type=int, default=5, help="runs of what draws by chance")
    parser.add_argument("--runtime", choices=get_args(Runtime), default="eager")
    parser.add_argument("--journal", type=Path, default=JOURNALS, help="folder of evaluations")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result files")
    return parser.parse_args()


if __name__ == "__main__":
    main()
