"""The tables of Song et al. 2021, and what else is asked of networks: `python -m benchmarks.paper`.

The paper's two networks meet the paper's two searches, fine-tuning included, and ours without and
with recovery; two networks of today meet ours alone. Whatever is delivered is judged on images that
served for nothing else and raced against dense in eager torch and in onnxruntime, at batch 1 and
64, each network in its best layout, in CPU seconds. Rows are kept in a journal, so a run that was
stopped goes on where it was.
"""

import argparse
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.case import CIFAR10, MNIST, RESNET, VGG, Case
from benchmarks.paper.entry import PRUNED, entries, key_of, pruning_budgets
from benchmarks.paper.row import Row
from benchmarks.paper.search import searched
from benchmarks.paper.targets import targets
from benchmarks.record import RESULTS, Record
from benchmarks.rivals.clock import cpu_clock
from benchmarks.rivals.journal import JOURNALS
from search.errors import DataError
from service.settings import Settings

CASES = (MNIST, CIFAR10, RESNET, VGG)
RIVAL = "torch_pruning"
PACKAGES = ("onnxruntime", *(("torch-pruning",) if find_spec(RIVAL) else ()))


def main() -> None:
    """Ask everything of every network that is there, and write a record for each."""
    arguments = _arguments()
    torch.set_num_threads(1)
    for case in CASES:
        if case.name not in arguments.networks:
            continue
        if not case.weights.exists():
            print(f"{case.name} left out: no weights, see benchmarks/train.py", flush=True)
            continue
        started_at = datetime.now(UTC)
        try:
            with cpu_clock():
                found = list(_rows(case, arguments.journal / f"paper-{case.name}"))
        except DataError as error:
            print(f"{case.name} left out: {error}", flush=True)
            continue
        rows = list({json.dumps(row, sort_keys=True): row for row in found}.values())
        record = Record(
            command=f"make bench-paper ARGUMENTS='--networks {case.name}'",
            threads=1,
            n=min(each["rounds"] for row in rows for each in row.get("speedups", {}).values()),
            started_at=started_at,
            seconds=sum(row["seconds"] for row in rows if "seconds" in row),
            rows=rows,
            targets=targets(case, rows),
            packages=PACKAGES,
        )
        for target in record.targets:
            print(target.as_json())
        print(record.write(f"paper-{case.name}", arguments.out), flush=True)


def _rows(case: Case, journal: Path) -> Iterator[Row]:
    """Of one network; those of an earlier run as they were."""
    data_root = Settings.from_environment().data_root
    for entry in entries(case):
        kept = journal / f"{entry.key}.json"
        if not kept.exists():
            asked = journal / f"{entry.key}.jsonl"
            _keep(kept, searched(case, entry, data_root, asked))
        yield from _told(kept)
    if find_spec(RIVAL) is None:
        print(f"{case.name}: {RIVAL} is not installed, its rows are left out", flush=True)
        return
    from benchmarks.paper.pruning import pruned  # noqa: PLC0415 (the package may not be there)

    for recovery in PRUNED:
        if pruning_budgets(case, recovery):
            kept = journal / f"Torch-Pruning{key_of(recovery)}.json"
            if not kept.exists():
                _keep(kept, list(pruned(case, recovery, data_root)))
            yield from _told(kept)


def _keep(file: Path, rows: list[Row]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps(rows))
    partial.replace(file)


def _told(file: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(file.read_text())
    for row in rows:
        print({k: v for k, v in row.items() if k != "speedups"}, flush=True)
        print({k: round(v["speedup"], 2) for k, v in row.get("speedups", {}).items()}, flush=True)
    return rows


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper", description=__doc__)
    names = [case.name for case in CASES]
    parser.add_argument("--networks", nargs="+", choices=names, default=names)
    parser.add_argument("--journal", type=Path, default=JOURNALS, help="folder of finished rows")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result files")
    return parser.parse_args()


if __name__ == "__main__":
    main()
