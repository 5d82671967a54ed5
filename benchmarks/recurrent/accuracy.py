"""How well formats of equally many parameters learn to classify sequences, from nothing."""

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.recurrent.journal import keep
from benchmarks.recurrent.matching import Match, matched
from benchmarks.recurrent.tasks import TASKS, Sequences, Task
from benchmarks.recurrent.training import CELLS, Trained, classifier, trained
from compress.recurrent.layer import CELLS as KINDS
from compress.recurrent.modes import Modes

SEEDS = 3

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands in for the weights."""

    name: str
    format: str | None
    """None: all stay dense."""
    few_terms: bool = False

    def match(self, modes: Modes, budget: int) -> Match:
        """As large as the budget allows.

        Raises:
            ValueError: even rank 1 is above it.
        """
        found = matched(str(self.format), modes, budget, few_terms=self.few_terms)
        if found is None:
            raise ValueError(f"{self.name} of {modes} has more than {budget} parameters at rank 1")
        return found


ENTRIES = (
    Entry("dense", None),
    Entry("kcp", "kcp"),
    Entry("kcp, few terms", "kcp", few_terms=True),
    Entry("svd", "svd"),
    Entry("tensor_train_matrix", "tensor_train_matrix"),
    Entry("block_term", "block_term"),
)


def rows(
    data_root: Path, journal: Path, names: Sequence[str], cells: Sequence[str] = tuple(CELLS)
) -> Iterator[Row]:
    """Of the tasks of these names, in these cells and every format; what ran before is read."""
    for task in TASKS:
        if task.name in names:
            data = task.load(data_root)
            for cell in (each for each in task.cells if each in cells):
                met = list[dict[str, Match]]()
                for entry in ENTRIES:
                    matches = matches_of(task, cell, data[0].x.shape[-1], entry)
                    if matches not in met:  # two ways to choose may come to the same
                        met.append(matches)
                        yield _row(task, cell, entry, matches, data=data, journal=journal)


def matches_of(task: Task, cell: str, features: int, entry: Entry) -> dict[str, Match]:
    """What stands in for each weight that the task factorises."""
    if entry.format is None:
        return {}
    outputs = KINDS[cell].gates * task.hidden_size
    found = {}
    for name in task.weights:
        inputs = features if name.startswith("weight_ih") else task.hidden_size
        found[name] = entry.match(Modes.of(inputs, outputs), int(task.share * inputs * outputs))
    return found


def _row(
    task: Task,
    cell: str,
    entry: Entry,
    matches: dict[str, Match],
    *,
    data: tuple[Sequences, Sequences],
    journal: Path,
) -> Row:
    runs = []
    for seed in range(SEEDS):
        kept = journal / f"{task.name} {cell} {entry.name} {task.epochs} {seed}.json"
        if not kept.exists():
            keep(kept, asdict(trained(task, cell, matches, data, seed)))
        runs.append(Trained(**json.loads(kept.read_text())))
    found = {
        "task": task.name,
        "cell": cell,
        "format": entry.name,
        "ranks": {name: match.ranks for name, match in matches.items()},
        "epochs": task.epochs,
        "sequences": len(data[0].x),
        "tested_on": len(data[1].x),
        **_sizes(task, cell, data[0].x.shape[-1], matches),
        "heads": [_spread([run.accuracies[i] for run in runs]) for i in range(len(task.heads))],
        "seconds": round(statistics.median(run.seconds for run in runs), 1),
    }
    print(found, flush=True)
    return found


def _sizes(task: Task, cell: str, features: int, matches: dict[str, Match]) -> Row:
    """Parameters, and by how much the dense network has more: of W_ih, and of the whole model."""
    whole, dense = (
        sum(p.numel() for p in classifier(task, cell, features, held).parameters())
        for held in (matches, {})
    )
    dense_inputs = CELLS[cell](features, task.hidden_size).weight_ih_l0.numel()
    held = matches.get("weight_ih_l0")
    inputs = held.network.parameters if held else dense_inputs
    return {
        "input_parameters": inputs,
        "input_ratio": round(dense_inputs / inputs, 1),
        "parameters": whole,
        "ratio": round(dense / whole, 2),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "mean": round(statistics.mean(values), 2),
        "least": min(values),
        "most": max(values),
    }
