"""Files that somebody changed to do harm: `python -m benchmarks.hostile`.

`.pt2` archives, safetensors files and state dicts of small networks, an LSTM among them, are
changed by chance: bytes and directories at the surface, and graphs, shapes, pickles and headers
whose checksums are right. Each is read by the service's check at the door and by what a job reads
it with, in a limited process that lasts until a file ends it. What is wanted: our own refusal, or a
network; no other exception, no code that runs, no memory beyond the limit. A network that reads,
and whose operators end the process when it is tried, is what that process is for.
"""

import argparse
import json
import signal
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from subprocess import Popen
from typing import Any, Final

from benchmarks.forgeries.forgery import Forgery, forge
from benchmarks.forgeries.originals import originals
from benchmarks.forgeries.reading import KINDS, MEMORY_BYTES, Outcome
from benchmarks.record import RESULTS, Record, Target
from compress.confinement import start_confined

FEWEST: Final = 10_000
SEED: Final = 0
NEVER: Final = ("ended", "foreign", "executed")


class Reader:
    """The process that reads, started anew where a file has ended it."""

    def __init__(self) -> None:
        self._child: Popen[bytes] | None = None

    def read(self, forgery: Forgery, path: Path) -> Outcome:
        """What comes of a file."""
        path.write_bytes(forgery.content)
        found = self._asked(forgery.form, path)
        if found.kind == "ended" and forgery.form == "program":
            alone = self._asked("read_program", path)
            if alone.kind in ("read", "refused"):
                return Outcome("ended in its trial", found.detail, found.memory_bytes)
        return found

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.kill()
            with suppress(BrokenPipeError), self._child:
                pass
            self._child = None

    def _asked(self, form: str, path: Path) -> Outcome:
        child = self._child = self._child or start_confined("benchmarks.forgeries.reading")
        assert child.stdin is not None
        assert child.stdout is not None
        with suppress(BrokenPipeError):
            child.stdin.write(json.dumps({"form": form, "path": str(path)}).encode() + b"\n")
            child.stdin.flush()
            if line := child.stdout.readline():
                return Outcome(**json.loads(line))
        number = -child.wait()
        self.close()
        kind = "limit" if number == signal.SIGXCPU else "ended"
        return Outcome(kind, f"signal {number}", 0)


def main() -> None:
    """Forge and read, and write the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile")
    parser.add_argument("--files", type=int, default=FEWEST)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the record")
    arguments = parser.parse_args()
    started_at, begun = datetime.now(UTC), time.monotonic()
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    largest: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory(prefix="hostile-") as name:
        folder, reader = Path(name), Reader()
        given, marker = originals(folder), folder / "executed"
        for number in range(arguments.first, arguments.first + arguments.files):
            forgery = forge(given, arguments.seed, number, marker)
            found = reader.read(forgery, folder / "file")
            kind = "executed" if marker.exists() else found.kind
            marker.unlink(missing_ok=True)
            key = forgery.form, forgery.way
            counts[key][kind] += 1
            largest[key] = max(largest[key], found.memory_bytes)
            if KINDS.index(kind) > KINDS.index("refused"):
                print(number, forgery.original, *key, kind, found.detail, flush=True)
        reader.close()
    rows = [_row(*key, counts[key], largest[key]) for key in sorted(counts)]
    record = Record(
        command="python -m benchmarks.hostile",
        threads=1,
        n=1,
        started_at=started_at,
        seconds=time.monotonic() - begun,
        rows=rows,
        targets=_targets(rows),
    )
    print(dict(sum(counts.values(), Counter())), record.write("hostile", arguments.results))


def _row(form: str, way: str, counts: Counter[str], memory_bytes: int) -> dict[str, Any]:
    return {
        "form": form,
        "changed": way,
        "files": counts.total(),
        **{kind.replace(" ", "_"): counts[kind] for kind in KINDS},
        "largest_mb": round(memory_bytes / 1e6),
    }


def _targets(rows: list[dict[str, Any]]) -> list[Target]:
    return [
        Target("hostile files", ">=", FEWEST, sum(row["files"] for row in rows)),
        *(
            Target(f"hostile files, {kind}", "<=", 0, sum(row[kind] for row in rows))
            for kind in NEVER
        ),
        Target("MB taken", "<=", round(MEMORY_BYTES / 1e6), max(r["largest_mb"] for r in rows)),
    ]


if __name__ == "__main__":
    main()
