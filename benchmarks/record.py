"""A result file: what was run, on what, what came out, and whether it is what was wanted."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("ranksearch", "torch", "torchvision", "numpy", "deap", "sqlalchemy", "fastapi")


@dataclass(frozen=True, slots=True)
class Target:
    """A wish and what came of it; `met` is computed, never typed."""

    name: str
    comparison: Literal[">=", "<=", "=="]
    wanted: float | str
    value: float | str | None
    """None: nothing could be measured, which meets no target."""

    @property
    def met(self) -> bool:
        if self.value is None:
            return False
        if self.comparison == "==":
            return self.value == self.wanted
        if isinstance(self.value, str) or isinstance(self.wanted, str):
            raise TypeError(
                f"{self.name}: {self.value!r} {self.comparison} {self.wanted!r} came, "
                "numbers were wanted"
            )
        if self.comparison == ">=":
            return self.value >= self.wanted
        return self.value <= self.wanted

    def as_json(self) -> dict[str, Any]:
        """The entry in the file."""
        wanted = f"{self.comparison} {self.wanted}"
        return {"name": self.name, "target": wanted, "value": self.value, "met": self.met}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run of one benchmark. Targets that were missed stay in the file."""

    command: str
    threads: int
    n: int
    """Repetitions behind each figure; what is repeated is the benchmark's to say."""
    started_at: datetime
    seconds: float
    rows: Sequence[Mapping[str, Any]]
    targets: Sequence[Target]
    packages: Sequence[str] = ()
    """More of which the version matters."""

    def write(self, name: str, folder: Path = RESULTS) -> Path:
        """Write `name`.json, or `name`-cuda.json where a GPU did the work."""
        found, packages = hardware(), (*PACKAGES, *self.packages)
        document = asdict(self)
        del document["packages"]
        document |= {
            "commit": commit(),
            "hardware": found,
            "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
            "started_at": self.started_at.astimezone(UTC).isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 1),
            "targets": [target.as_json() for target in self.targets],
        }
        path = folder / f"{name}{'-cuda' if 'gpu' in found else ''}.json"
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")
        return path


def commit() -> str | None:
    """The commit of this checkout, "+" behind it when files differ; None outside of git."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + "+" if changed else head


def hardware() -> dict[str, Any]:
    """Processor, cores of this process, memory, and the GPU if torch sees one."""
    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    import torch  # noqa: PLC0415

    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def _processor() -> str:
    lines = Path("/proc/cpuinfo")
    names = lines.read_text().splitlines() if lines.exists() else []
    named = (line.partition(":")[2].strip() for line in names if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
