"""Two identical networks, raced: `make bench-noise`.

How often one of them is called faster, and by how much their times differ by chance: the noise that
a speed-up stated by this machine has. Each race is one of a job's last, of a network and its copy.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.case import CIFAR10, DIGITS, MNIST, RESNET, Case
from benchmarks.record import RESULTS, Record, Target
from search.config import Objective, Runtime
from search.confirmation import RACE_SECONDS
from search.errors import DataError
from search.measurement import Ratio, race
from search.runtimes.registry import runtime_of
from service.settings import Settings

CASES = (DIGITS, MNIST, CIFAR10, RESNET)
RUNTIMES: tuple[Runtime, ...] = ("eager", "onnxruntime")
BATCHES = (1, 64)
# Each end of a 95 % interval may leave out the truth in a fortieth of the races.
ALLOWED_SHARE = 0.025

Row = dict[str, Any]


def main() -> None:
    """Race every network that is there against its copy, and write the record."""
    arguments = _arguments()
    started_at, begun = datetime.now(UTC), time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = [
        row
        for case in CASES
        if case.weights.exists()
        for row in _raced(case, device, arguments.races, arguments.seconds)
    ]
    record = Record(
        command="make bench-noise "
        f"ARGUMENTS='--races {arguments.races} --seconds {arguments.seconds:g}'",
        threads=1,
        n=arguments.races,
        started_at=started_at,
        seconds=time.monotonic() - begun,
        rows=rows,
        targets=targets(rows),
        packages=("onnxruntime",),
    )
    print(record.write("noise", arguments.out))


def _raced(case: Case, device: str, races: int, seconds: float) -> Iterator[Row]:
    """A row for each runtime and batch of one network."""
    try:
        arrays = case.arrays(Settings.from_environment().data_root)
    except DataError as error:
        print(f"{case.name} left out: {error}", flush=True)
        return
    network = case.load().requires_grad_(False).to(device)
    for runtime in RUNTIMES if device == "cpu" else RUNTIMES[:1]:
        for batch in BATCHES:
            objective = Objective(device="auto", runtime=runtime, batch=batch)
            example = arrays.batch(torch.arange(batch), torch.device(device))
            twin, ratios = copy.deepcopy(network), []
            for seed in range(races):
                ended = race(
                    {"dense": network, "copy": twin},
                    example,
                    runtime=runtime_of(objective),
                    seconds=seconds,
                    seed=seed,
                )
                ratios.append(ended.ratios["copy"])
            yield row({"network": case.network, "runtime": runtime, "batch": batch}, ratios)


def row(who: Row, ratios: list[Ratio]) -> Row:
    """What the races of one network came to; `ratios` are T of the copy / T of the network."""
    found = who | {
        "races": len(ratios),
        "called_faster": sum(ratio.high < 1 for ratio in ratios),
        "called_slower": sum(ratio.low > 1 for ratio in ratios),
        "least": min(ratio.median for ratio in ratios),
        "greatest": max(ratio.median for ratio in ratios),
        "half_width": statistics.median((ratio.high - ratio.low) / 2 for ratio in ratios),
    }
    print(found, flush=True)
    return found


def targets(rows: list[Row]) -> list[Target]:
    """An identical network is called faster no more often than the interval says."""
    races = sum(row["races"] for row in rows)
    found = []
    for name in ("faster", "slower"):
        share = round(sum(row[f"called_{name}"] for row in rows) / races, 4) if races else None
        found.append(Target(f"share of races that call a copy {name}", "<=", ALLOWED_SHARE, share))
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.noise", description=__doc__)
    parser.add_argument("--races", type=int, default=20, help="of each network and setting")
    parser.add_argument("--seconds", type=float, default=RACE_SECONDS, help="of each race")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
