"""The whole path on this machine: `python -m examples.demo [digits|mnist]`, or `make demo`.

A service is started in processes of its own; over HTTP it gets a trained network and its data, and
two jobs with one promise, `estimation` and `genetic`. Their results are loaded in processes that
cannot import anything of ours, and raced against the dense network. The table goes to stdout, the
record to benchmarks/results. Whatever was started has ended when this ends, however it ends.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console

from benchmarks.record import RESULTS, Record, Target
from examples.demo import arrays, table
from examples.demo.server import served
from search.config import Budget, EstimationConfig, GeneticConfig, Objective, StrategyConfig
from search.errors import DataError
from service.client import Client
from service.commands.watching import watch
from service.schemas import JobOrder, JobOut
from service.settings import Settings

HERE = Path(__file__).parent
THREADS = 1
WIDTH = 140  # of the table, where there is no terminal

told = Console(stderr=True, highlight=False)


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
    parser.add_argument("--generations", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the record")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _leave)  # passes through every `finally`, as Ctrl-C does
    try:
        _demo(arguments)
    except KeyboardInterrupt:
        sys.exit("stopped, with everything that was started")
    except DataError as error:
        sys.exit(str(error))


def _leave(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 (the signal's own)
    sys.exit(128 + number)


def _demo(arguments: argparse.Namespace) -> None:
    started_at, begun = datetime.now(UTC), time.monotonic()
    case = CASES[arguments.data]
    weights = HERE.parent / arguments.data / "model.safetensors"
    budget = Budget(max_loss=arguments.max_loss or case.max_loss, unit="points")
    strategies: dict[str, StrategyConfig] = {
        "estimation": EstimationConfig(),
        "genetic": GeneticConfig(generations=arguments.generations),
    }
    with tempfile.TemporaryDirectory(prefix="ranksearch-demo-") as name:
        folder = Path(name)
        files = arrays.write(arguments.data, Settings.from_environment().data_root, folder)
        with served(folder) as client:
            model = client.upload_model(weights, architecture=case.architecture)
            dataset = client.upload_dataset(files.upload)
            order = JobOrder(
                model=model.id,
                dataset=dataset.id,
                budget=budget,
                objective=Objective(batch=arguments.batch, threads=THREADS),
            )
            told.print(f"{case.architecture}: {budget.max_loss:g} points of accuracy may be lost")
            jobs = _jobs(client, order, strategies, folder)
        told.print("loading the results where ranksearch cannot be imported, then racing them")
        strangers = {
            name: _python("-I", HERE / "outsider.py", folder / name, files.confirmation)
            for name in jobs
        }
        race = _python(
            *("-m", "examples.demo.race", case.architecture, weights, files.confirmation),
            *(arguments.batch, THREADS, *(f"{name}={folder / name}" for name in jobs)),
        )
        rows = [table.dense_row(race, strangers["estimation"]["n"], jobs["estimation"].baseline)]
        rows += [
            table.result_row(name, job, folder / name, race, strangers[name]["right"])
            for name, job in jobs.items()
        ]
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    table.show(rows, console, budget.confidence)
    seconds = time.monotonic() - begun
    record = Record(
        command=f"make demo{'' if arguments.data == 'digits' else f' DATA={arguments.data}'}",
        threads=THREADS,
        n=race["rounds"],
        started_at=started_at,
        seconds=seconds,
        rows=rows,
        targets=_targets(jobs, rows, race, seconds),
    )
    for target in record.targets:
        met = "met   " if target.met else "MISSED"
        console.print(
            f"{met}  {target.name}: {target.value}, wanted {target.comparison} {target.wanted}"
        )
    told.print(f"written: {record.write(case.record, arguments.results)}", soft_wrap=True)


def _jobs(
    client: Client,
    order: JobOrder,
    strategies: Mapping[str, StrategyConfig],
    folder: Path,
) -> dict[str, JobOut]:
    """Submit a job for each strategy, follow them in turn, download what they made.

    Raises:
        RuntimeError: a job came to no verdict.
    """
    queued = {
        name: client.submit(replace(order, search=config, name=name)).id
        for name, config in strategies.items()
    }
    ended = {}
    for name, job_id in queued.items():
        told.print(f"[bold]{name}[/]  {job_id}")
        ended[name] = job = watch(client, job_id)
        if job.verdict is None:
            raise RuntimeError(f"the job {name} ended as {job.state}: {job.reason}")
        for artifact in client.artifacts(job_id):
            client.download(artifact, folder / name)
    return ended


def _python(*arguments: object) -> Any:
    """What a Python process of its own prints, one JSON document."""
    command = [sys.executable, *map(str, arguments)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ended.stdout)


def _targets(
    jobs: Mapping[str, JobOut],
    rows: list[dict[str, Any]],
    race: Mapping[str, Any],
    seconds: float,
) -> list[Target]:
    """What the demo is to show."""
    speedups = {row["network"]: row["speedup"] for row in rows}
    kept = [row["speedup"] / row["speedup_promised"] for row in rows]
    differences = [row["stranger_differs"] for row in rows if "stranger_differs" in row]
    return [
        Target("verdict of estimation", "==", "budget_met", jobs["estimation"].verdict),
        Target("verdict of genetic", "==", "budget_met", jobs["genetic"].verdict),
        Target("speedup of estimation", ">=", 1.5, round(speedups["estimation"], 3)),
        Target("least T_genetic / T_estimation, 95 %", "<=", 1.0, round(race["duel"]["low"], 4)),
        Target("least speedup raced / promised", ">=", 0.9, round(min(kept), 3)),
        Target("accuracy a stranger finds differs by points", "<=", 0.1, max(differences)),
        Target("seconds", "<=", 300.0, round(seconds, 1)),
    ]


if __name__ == "__main__":
    main()
