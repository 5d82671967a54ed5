"""Faults put into `compress`, one at a time, to see the tests find them.

`python -m benchmarks.mutation`; mutants.toml lists them by hand: in which file, what stands there,
what is put in its place, and the tests that should fail. A mutant that they let pass has survived,
and the record says so.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from benchmarks.record import RESULTS, ROOT, Record, Target

LIST = Path(__file__).parent / "mutants.toml"
FEWEST = 30
FAILED = 1  # where a test failed; others mean that pytest itself could not run


class MutantError(ValueError):
    """A mutant that does not fit the code as it is."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault."""

    file: str
    """Below the root of the repository."""
    was: str
    becomes: str
    tests: str
    """What pytest is given, words parted by spaces."""

    @classmethod
    def all(cls) -> list[Self]:
        """Those of the list."""
        return [cls(**entry) for entry in tomllib.loads(LIST.read_text())["mutant"]]

    def applied(self, text: str) -> str:
        """The file with the fault.

        Raises:
            MutantError: what should stand there does not, or stands there more than once.
        """
        if (count := text.count(self.was)) != 1:
            raise MutantError(f"{self.file} has {self.was!r} {count} times, once was wanted")
        return text.replace(self.was, self.becomes)


def main() -> None:
    """Try every mutant and write the record, or some and write none."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutation")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the record")
    parser.add_argument("--only", default="", help="mutants whose file has this in its name")
    arguments = parser.parse_args()
    started_at, begun = datetime.now(UTC), time.monotonic()
    mutants = [mutant for mutant in Mutant.all() if arguments.only in mutant.file]
    with tempfile.TemporaryDirectory() as folder:
        copy_of_the_code(Path(folder))
        rows = [_row(mutant, Path(folder)) for mutant in mutants]
    killed = sum(row["killed"] for row in rows)
    print(f"{killed} of {len(rows)} killed")
    if arguments.only:
        return
    record = Record(
        command="python -m benchmarks.mutation",
        threads=1,
        n=1,
        started_at=started_at,
        seconds=time.monotonic() - begun,
        rows=rows,
        targets=[
            Target("mutants", ">=", FEWEST, len(rows)),
            Target("survivors", "<=", 0, len(rows) - killed),
        ],
    )
    print(f"written: {record.write('mutation', arguments.results)}")


def copy_of_the_code(folder: Path) -> None:
    """The files of this checkout, as git knows them, in another folder."""
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "-co", "--exclude-standard"]
    names = subprocess.run(listed, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())


def is_killed(mutant: Mutant, folder: Path) -> bool:
    """Whether the tests of a copy of the code see the fault; the copy is left without it.

    Raises:
        MutantError: the mutant does not fit, or its tests cannot be run.
    """
    path = folder / mutant.file
    text = path.read_text()
    path.write_text(mutant.applied(text))
    try:
        status = _pytest(mutant.tests.split(), folder)
    finally:
        path.write_text(text)
    if status not in (0, FAILED):
        raise MutantError(f"pytest {mutant.tests} ended with {status}, tests were wanted")
    return status == FAILED


def _pytest(tests: Sequence[str], folder: Path) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode


def _row(mutant: Mutant, folder: Path) -> dict[str, Any]:
    begun = time.monotonic()
    row = asdict(mutant) | {"killed": is_killed(mutant, folder)}
    row["seconds"] = round(time.monotonic() - begun, 1)
    print("killed  " if row["killed"] else "SURVIVED", mutant.file, mutant.becomes, flush=True)
    return row


if __name__ == "__main__":
    main()
