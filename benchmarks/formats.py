"""Networks in as `.pt2`, and out in all three forms: `make bench-formats`.

Each network is built with random weights, exported by torch.export for any batch, read by our
reader in another process and compared bit by bit; three of its layers are factorised, the result
is written, and a third process, which has torch and onnxruntime but nothing of ours, loads each
form and compares it with the factorised network. Batches of 1 and 3, one thread, CPU seconds. The
first two processes are forks of one that has imported the libraries; their peak of memory
includes those. `leaks` counts the files that name a folder of this machine or its user.
"""

import argparse
import getpass
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks import format_stages
from benchmarks.format_networks import ALL
from benchmarks.record import RESULTS, ROOT, Record, Target

STRANGER: Final = Path(__file__).with_name("format_stranger.py")
FORMS: Final = {"weights": "model.safetensors", "program": "model.pt2", "graph": "model.onnx"}
STAGES: Final = {"export": format_stages.export, "compress": format_stages.compress}
TIMEOUT_SECONDS: Final = 900
TOLERANCE: Final = 1e-5
WANTED_SHARE: Final = 0.95
WANTED_NETWORKS: Final = 40
OLDER: Final = ("resnet18", "mobilenet_v3_small", "vit_b_32", "lstm_classifier", "unet")
SHORTEST: Final = 5  # letters of a name that random weights hardly spell

Row = dict[str, Any]
EMPTY: Final[Mapping[str, Any]] = dict.fromkeys(
    [
        *("architecture", "parameters", "dense_bytes", "read_seconds", "read_equal", "read_error"),
        *("keys_equal", "layers", "layers_wanted", "factorised", "write_seconds", "peak_bytes"),
        *(f"{form}_{what}" for form in FORMS for what in ("bytes", "seconds", "error")),
        *("older_loads", "leaks", "failure"),
    ]
)


def main() -> None:
    """Try every network and write the record after each, so that a run may be stopped."""
    arguments = _arguments()
    path = arguments.results / "formats.json"
    earlier = json.loads(path.read_text()) if arguments.resume and path.exists() else {}
    rows: list[Row] = earlier.get("rows", [])
    started_at, began = datetime.now(UTC), time.monotonic() - earlier.get("seconds", 0)
    if earlier:
        started_at = datetime.fromisoformat(earlier["started_at"])
    known = {row["architecture"] for row in rows}
    for name in (name for name in arguments.networks if name not in known):
        with tempfile.TemporaryDirectory(prefix="formats-") as folder:
            rows.append(row_of(name, Path(folder), arguments.older))
        print(*(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
        Record(
            command="make bench-formats" + (" OLDER=PYTHON" if arguments.older else ""),
            threads=1,
            n=1,
            started_at=started_at,
            seconds=time.monotonic() - began,
            rows=rows,
            targets=targets(rows),
        ).write("formats", arguments.results)
    print(f"written: {path}")


def row_of(name: str, folder: Path, older: str | None) -> Row:
    """What became of one network, as far as it came.

    Args:
        name: of `format_networks.ALL`.
        folder: empty, for the files.
        older: a Python of another torch, which is to load `model.pt2` too.
    """
    row: Row = {**EMPTY, "architecture": name}
    for stage in STAGES:
        row |= in_a_process(stage, name, folder)
        if not (folder / {"export": "dense.pt2", "compress": "result"}[stage]).exists():
            return row
    sizes = row.pop("sizes", {})
    told = strangers(sys.executable, folder)
    row |= outcome(told, sizes, row["failure"])
    if older and name in OLDER:
        found = strangers(older, folder)["forms"].get(FORMS["program"], {})
        row["older_loads"] = _within(found.get("error"))
    return row | {"leaks": len(list(leaks(folder / "result", _secrets(folder))))}


def outcome(told: Mapping[str, Any], sizes: Mapping[str, int], failure: str | None) -> Row:
    """The part of a row that a stranger told, and all that failed by now."""
    row: Row = {}
    failures = [failure, told.get("failure")]
    for form, file in FORMS.items():
        found = told["forms"].get(file, {})
        row |= {
            f"{form}_bytes": sizes.get(file),
            f"{form}_seconds": found.get("seconds"),
            f"{form}_error": found.get("error"),
        }
        if found.get("failure"):
            failures.append(f"{file}: {found['failure']}")
    return row | {"failure": "; ".join(f for f in failures if f) or None}


def in_a_process(stage: str, name: str, folder: Path) -> Row:
    """What a stage finds in a process of its own, forked from one that did nothing but import."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.format_preload"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, stage, name, folder))
    process.start()
    theirs.close()
    try:
        if ours.poll(TIMEOUT_SECONDS):
            return ours.recv()
        process.kill()
        return {"failure": f"{stage}: not done after {TIMEOUT_SECONDS} s"}
    except EOFError:
        process.join()
        return {"failure": f"{stage}: exit code {process.exitcode}"}
    finally:
        process.join()
        ours.close()


def _answer(pipe: Connection, stage: str, name: str, folder: Path) -> None:
    torch.set_num_threads(1)
    try:
        found = STAGES[stage](name, folder)
    except Exception as error:  # a fault of ours, and a row all the same
        found = {"failure": f"{stage}: {format_stages.told(error)}"}
    pipe.send(found)


def strangers(python: str, folder: Path) -> dict[str, Any]:
    """What `format_stranger` prints of a result, from a folder that is not ours."""
    command = [
        python,
        "-I",
        "-B",
        STRANGER,
        folder / "result",
        folder / "factorised.safetensors",
    ]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    try:
        done = subprocess.run(
            [*map(str, command)],
            check=False,
            cwd=folder,
            env=environment | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return {"forms": {}, "failure": f"a stranger: not done after {TIMEOUT_SECONDS} s"}
    if done.returncode:
        said = "".join(done.stderr.strip().splitlines()[-1:])
        return {"forms": {}, "failure": f"a stranger: exit code {done.returncode}: {said}"}
    return json.loads(done.stdout.splitlines()[-1])


def leaks(folder: Path, secrets: Sequence[bytes]) -> Iterator[Path]:
    """The files of a result that hold one of `secrets`, in an archive's entries too."""
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        if any(secret in content for content in _contents(path) for secret in secrets):
            yield path


def _contents(path: Path) -> Iterator[bytes]:
    yield path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            packed = (e for e in archive.infolist() if e.compress_type != zipfile.ZIP_STORED)
            yield from (archive.read(entry) for entry in packed)


def _secrets(folder: Path) -> list[bytes]:
    """Folders of this machine, and the name of its user where random bytes hardly spell it."""
    names = [str(ROOT), str(folder), sys.prefix, f"{Path.home()}/", "site-packages"]
    user = getpass.getuser()
    return [name.encode() for name in [*names, *([user] if len(user) >= SHORTEST else [])]]


def targets(rows: Sequence[Mapping[str, Any]]) -> list[Target]:
    """What came of the wishes; a row that failed has none of them."""
    count = len(rows)
    equal = sum(bool(row["read_equal"]) for row in rows) / count
    wanted = sum(row["layers_wanted"] or 0 for row in rows)
    layers = round(sum(row["layers"] or 0 for row in rows) / wanted, 4) if wanted else None
    tried = [row["older_loads"] for row in rows if row["older_loads"] is not None]
    older = sum(tried) / len(tried) if tried else None
    out = {form: sum(_within(row[f"{form}_error"]) for row in rows) / count for form in FORMS}
    return [
        Target("networks", ">=", WANTED_NETWORKS, count),
        Target("share that computes the same bits once read", ">=", WANTED_SHARE, round(equal, 4)),
        Target("share of layers under their names", ">=", WANTED_SHARE, layers),
        *(
            Target(f"share of {FORMS[form]} within 1e-5", ">=", WANTED_SHARE, round(share, 4))
            for form, share in out.items()
        ),
        Target("files that name this machine", "<=", 0, sum(row["leaks"] or 0 for row in rows)),
        Target("share of model.pt2 that torch 2.11 loads", ">=", WANTED_SHARE, older),
    ]


def _within(error: float | None) -> bool:
    return error is not None and error <= TOLERANCE


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.formats")
    parser.add_argument("networks", nargs="*", default=ALL)
    parser.add_argument("--older", metavar="PYTHON", help="of torch 2.11, to load model.pt2 too")
    parser.add_argument("--resume", action="store_true", help="keep the rows of the record")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the record")
    return parser.parse_args()


if __name__ == "__main__":
    main()
