"""Recurrent layers in all formats: `make bench-recurrent`.

What a product costs at the sizes of UCF11, beside tednet's layers where that package is installed,
and how well networks of equally many parameters learn. Every race and every training is kept in a
journal, so a run that was stopped goes on where it was. Times are CPU seconds of one thread, or
those of a GPU's own events.
"""

import argparse
import json
import time
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import torch

from benchmarks.record import RESULTS, Record
from benchmarks.recurrent import accuracy, cost
from benchmarks.recurrent.journal import keep
from benchmarks.recurrent.targets import accuracy_targets, cost_targets
from benchmarks.recurrent.tasks import TASKS
from benchmarks.recurrent.training import CELLS
from benchmarks.rivals.journal import JOURNALS
from compress.load import keep_freed_memory
from service.settings import Settings

PARTS = ("cost", "accuracy")


def main() -> None:
    """Measure both parts, and write a record for each."""
    arguments = _arguments()
    torch.set_num_threads(1)
    keep_freed_memory()
    if "cost" in arguments.parts:
        _record_cost(arguments)
    if "accuracy" in arguments.parts:
        _record_accuracy(arguments)


def _record_cost(arguments: argparse.Namespace) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    started_at = datetime.now(UTC)
    races = [*cost.format_races(device), *cost.order_races(device)]
    if find_spec("tednet"):
        from benchmarks.recurrent.tednet_rows import tednet_races  # noqa: PLC0415 (an extra)

        races += tednet_races(device)
    else:
        print("tednet is not installed, its rows are left out", flush=True)
    kept = arguments.journal / f"recurrent-cost-{device.type}"
    seconds, rows = 0.0, list[cost.Row]()
    for key, run in races:
        file = kept / f"{key}.json"
        if not file.exists():
            begun = time.process_time()
            found = run()
            keep(file, [time.process_time() - begun, found])
        each, found = json.loads(file.read_text())
        print(*found, sep="\n", flush=True)
        seconds += each
        rows += found
    record = Record(
        command=_command("cost"),
        threads=1,
        n=cost.ROUNDS,
        started_at=started_at,
        seconds=seconds,
        rows=rows,
        targets=cost_targets(rows),
        packages=("tednet",) if find_spec("tednet") else (),
    )
    _tell(record, "recurrent-cost", arguments.out)


def _record_accuracy(arguments: argparse.Namespace) -> None:
    started_at = datetime.now(UTC)
    root = Settings.from_environment().data_root
    journal = arguments.journal / "recurrent"
    rows = list(accuracy.rows(root, journal, arguments.tasks, arguments.cells))
    record = Record(
        command=_command(
            f"accuracy --tasks {' '.join(arguments.tasks)} --cells {' '.join(arguments.cells)}"
        ),
        threads=1,
        n=accuracy.SEEDS,
        started_at=started_at,
        seconds=sum(accuracy.SEEDS * row["seconds"] for row in rows),
        rows=rows,
        targets=accuracy_targets(rows),
        packages=("aeon",) if find_spec("aeon") else (),
    )
    _tell(record, "recurrent-accuracy", arguments.out)


def _tell(record: Record, name: str, folder: Path) -> None:
    for target in record.targets:
        print(target.as_json())
    print(record.write(name, folder), flush=True)


def _command(part: str) -> str:
    return f"make bench-recurrent ARGUMENTS='--parts {part}'"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recurrent", description=__doc__)
    names = [task.name for task in TASKS]
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--tasks", nargs="+", choices=names, default=names)
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=tuple(CELLS))
    parser.add_argument("--journal", type=Path, default=JOURNALS, help="folder of trainings")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result files")
    return parser.parse_args()


if __name__ == "__main__":
    main()
