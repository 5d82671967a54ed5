"""The whole path on this machine: `python -m examples.demo [digits|mnist]`, or `make demo`.

A service is started in processes of its own; over HTTP it gets a trained network and its data, and
makes two jobs of one promise, `estimation` and `genetic`. Their results are loaded in processes
that cannot import anything of ours, and raced against the dense network. The table goes to stdout,
the record to benchmarks/results. Whatever was started has ended when this ends, however it ends.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console

from benchmarks.record import RESULTS, Record, Target
from examples.demo import arrays, table
from examples.demo.server import served
from search.config import Budget, EstimationConfig, GeneticConfig, Objective
from service.client import Client
from service.commands.watching import watch
from service.schemas import JobOrder, JobOut
from service.settings import Settings

HERE = Path(__file__).parent
SECONDS = 300
THREADS = 1


@dataclass(frozen=True, slots=True)
class Case:
    """A trained network of ours and the promise that the demo asks for it."""

    architecture: str
    max_loss: float
    record: str


CASES = {
    "digits": Case("digits_cnn", 2.0, "demo"),
    "mnist": Case("song_mnist", 0.5, "demo-mnist"),
}


def main() -> None:
    """Run the demo that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description="The whole path.")
    parser.add_argument("data", nargs="?", choices=CASES, default="digits")
    parser.add_argument("--max-loss", type=float, help="points of accuracy that may be lost")
    parser.add_argument("--batch", type=int, default=8, help="batch size that is timed")
    parser.add_argument("--generations", type=int, default=GeneticConfig.generations)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the record")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _leave)  # passes through every `finally`, as Ctrl-C does
    try:
        _demo(arguments)
    except KeyboardInterrupt:
        sys.exit("stopped; nothing was left running")


def _leave(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 (the signal's own)
    sys.exit(128 + number)


def _demo(arguments: argparse.Namespace) -> None:
    started_at, begun = datetime.now(UTC), time.monotonic()
    case = CASES[arguments.data]
    weights = HERE.parent / arguments.data / "model.safetensors"
    budget = Budget(max_loss=arguments.max_loss or case.max_loss, unit="points")
    strategies = {
        "estimation": EstimationConfig(),
        "genetic": GeneticConfig(generations=arguments.generations),
    }
    told = Console(stderr=True, highlight=False)
    with tempfile.TemporaryDirectory(prefix="ranksearch-demo-") as name:
        folder = Path(name)
        files = arrays.write(arguments.data, Settings.from_environment().data_root, folder)
        told.print(f"{case.architecture}: lose at most {budget.max_loss:g} points of accuracy")
        with served(folder) as client:
            model = client.upload_model(weights, architecture=case.architecture)
            dataset = client.upload_dataset(files.upload)
            orders = {
                strategy: JobOrder(
                    model=model.id,
                    dataset=dataset.id,
                    budget=budget,
                    objective=Objective(batch=arguments.batch, threads=THREADS),
                    search=config,
                    name=strategy,
                )
                for strategy, config in strategies.items()
            }
            jobs = {strategy: client.submit(order).id for strategy, order in orders.items()}
            ended = {s: _result(client, jobs[s], folder / s, told, s) for s in strategies}
        told.print("loading each result in a process that cannot import ranksearch, then racing")
        strangers = {
            s: _run(["-I", str(HERE / "outsider.py"), str(folder / s), str(files.confirmation)])
            for s in ended
        }
        race = _run(
            ["-m", "examples.demo.race", case.architecture, str(weights), str(files.confirmation)]
            + [str(arguments.batch), str(THREADS), *(f"{s}={folder / s}" for s in ended)]
        )
        rows = [
            table.dense_row(race, strangers["estimation"]["n"], _baseline(ended["estimation"])),
            *(
                table.result_row(s, job, folder / s, race, strangers[s]["right"])
                for s, job in ended.items()
            ),
        ]
    console = Console(highlight=False)
    table.show(rows, console, budget.confidence)
    seconds = time.monotonic() - begun
    record = Record(
        command=f"make demo{'' if arguments.data == 'digits' else f' DATA={arguments.data}'}",
        threads=THREADS,
        n=race["rounds"],
        started_at=started_at,
        seconds=seconds,
        rows=rows,
        targets=_targets(rows, race, seconds),
    )
    for target in record.targets:
        sign = "met " if target.met else "MISSED"
        console.print(f"{sign}  {target.name}: {target.value} {target.comparison} {target.wanted}")
    console.print(f"written to {record.write(case.record, arguments.results)}", soft_wrap=True)
