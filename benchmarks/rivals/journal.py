"""Evaluations on disk: rivals share them, and a benchmark that was stopped goes on from them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.record import ROOT
from benchmarks.rivals.contest import Evaluated
from search.strategy import Costs

JOURNALS = ROOT / "benchmarks" / "journal"  # git ignores it


class Journal:
    """Costs by key, one line of JSON each, written as soon as they are known.

    Whoever asks about a plan again gets the very figures that the first one got, seconds included:
    no rival gains by the noise of a timing, or by another's work.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        lines = file.read_text().splitlines() if file.exists() else []
        self._known: dict[str, dict[str, Any]] = {}
        for line in lines:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # the line that was being written when it was stopped
                continue
            self._known[entry.pop("key")] = entry

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Evaluated | None:
        """What is known of a key."""
        entry = self._known.get(key)
        if entry is None:
            return None
        costs = {name: value for name, value in entry.items() if name != "seconds"}
        # Written before costs had these two: latency was all that could be minimised.
        return Costs(**{"mac_share": 1.0, "cost": entry["time_share"]} | costs), entry["seconds"]

    def put(self, key: str, costs: Costs, seconds: float) -> None:
        """Remember an evaluation."""
        entry = asdict(costs) | {"seconds": round(seconds, 4)}
        self._known[key] = entry
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a") as lines:
            lines.write("\n" + json.dumps({"key": key} | entry))  # whatever was cut off before
