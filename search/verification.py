"""Is this result what it says, and how fast is it here?

    python -m search.verification RESULT [--json]

RESULT is the folder or the zip of a job's result. Its files are compared with the digests of its
manifest, it is loaded by the `load.py` that came with it, compared with its `model.pt2` and its
`model.onnx`, and timed against the dense network on this machine. `load.py` is run only if it is
the file that the manifest names; verify results of services you trust.

Exit code 0 if everything holds, 1 if something does not, 2 for wrong usage.
"""

import argparse
import hashlib
import importlib.util
import json
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from compress.artifact import GRAPH
from compress.batch import accept_batches_, tensors_of, together
from compress.export import PROGRAM
from compress.flow import Flow
from compress.simplify import simplify_
from search.config import Objective
from search.errors import DeviceError
from search.measurement import Ratio, Timing, race
from search.runtimes.eager import Eager
from search.runtimes.registry import missing, runtime_of
from search.runtimes.runtime import Runtime

# Largest difference to model.pt2 or model.onnx as a share of the largest output: float32 round-off.
PARITY = 1e-4
BATCHES = (2, 3)  # two sizes, since the program's batch is dynamic
TIMING_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    holds: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Timed here, interleaved with the dense network."""

    dense: Timing
    result: Timing
    ratio: Ratio
    """T_result / T_dense, where freed memory is kept."""
    ratio_as_it_comes: Ratio
    """The same before anything was asked of the C library's allocator."""
    device: str
    runtime: str
    """That of the job; eager where it is not installed here."""
    batch: int
    threads: int

    @property
    def speedup(self) -> float:
        return 1 / self.ratio.median


@dataclass(frozen=True, slots=True)
class Verification:
    """What came out. Speed is None where a check failed: there is nothing to be timed then."""

    checks: tuple[Check, ...]
    speed: Speed | None

    @property
    def holds(self) -> bool:
        return all(check.holds for check in self.checks)


def verify(folder: Path) -> Verification:
    """Look at the unpacked result in `folder`.

    A check that fails ends it: nothing of files that are not what they should be is run.
    """
    manifest = _read_manifest(folder)
    if isinstance(manifest, Check):
        return Verification((manifest,), None)
    files = _files(folder, manifest["files"])
    if not files.holds:
        return Verification((files,), None)
    try:
        loader = _loader(folder / "load.py")
        network: nn.Module = loader.load(folder)
    except Exception as error:  # whatever a file of another version may raise
        return Verification((files, Check("reload", False, _said(error))), None)
    checks = (files, _reloaded(manifest, network), *_parity(folder, manifest, network))
    if not all(check.holds for check in checks):
        return Verification(checks, None)
    return Verification(checks, _speed(loader, manifest, network))


def _read_manifest(folder: Path) -> dict[str, Any] | Check:
    """The manifest with the parts that are read here, or what is wrong with it."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        files, shape = manifest["files"], manifest["input_shape"]
        if not {"load.py", "model.safetensors"} <= files.keys() or not shape:
            raise ValueError(f"files {sorted(files)} and an input of {shape} are no result")
        if strange := [name for name in files if Path(name).name != name]:
            raise ValueError(f"files {strange} came, plain names were wanted")
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        return Check("files", False, f"manifest.json cannot be read: {_said(error)}")
    return manifest


def _files(folder: Path, digests: dict[str, str]) -> Check:
    wrong = []
    for name, digest in digests.items():
        path = folder / name
        if not path.is_file():
            wrong.append(f"{name} is missing")
        elif _sha256(path) != digest:
            wrong.append(f"{name} is not the file that was written")
    if wrong:
        return Check("files", False, "; ".join(wrong))
    return Check("files", True, f"{len(digests)} of {len(digests)} are as they were written")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _loader(path: Path) -> ModuleType:
    """The loader that came with the result, under a name that is nobody else's."""
    spec = importlib.util.spec_from_file_location("shipped_loader", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _reloaded(manifest: dict[str, Any], network: nn.Module) -> Check:
    parameters = sum(parameter.numel() for parameter in network.parameters())
    layers = sum(len(rows) > 1 for rows in manifest["layers"].values())
    layers += len(manifest.get("recurrent", {}))
    return Check(
        "reload", True, f"{layers} layer{'s' * (layers != 1)} factorised, {parameters:,} parameters"
    )


def _parity(folder: Path, manifest: dict[str, Any], network: nn.Module) -> Iterator[Check]:
    """Whether model.pt2 and model.onnx, where they are part of the result, compute the same."""
    for check, name, opened in (("parity", PROGRAM, _program), ("onnx", GRAPH, _graph)):
        if name not in manifest["files"]:
            continue
        try:
            program = opened(folder / name)
            difference = max(_difference(program, network, manifest, batch) for batch in BATCHES)
        except DeviceError as error:
            yield Check(check, True, f"{name} was not run: {error}")
        except Exception as error:  # torch and onnxruntime raise many kinds
            yield Check(check, False, f"{name} does not run: {_said(error)}")
        else:
            detail = f"{name} differs by {difference:.1e} of the largest output"
            yield Check(check, difference <= PARITY, detail)


def _program(path: Path) -> Callable[..., Tensor]:
    return torch.export.load(path).module()


def _graph(path: Path) -> Callable[..., Tensor]:
    if reason := missing("onnxruntime"):
        raise DeviceError(reason)
    from compress.onnx.session import Session  # noqa: PLC0415, optional

    return Session(path)


@torch.inference_mode()
def _difference(
    program: Callable[..., Tensor], network: nn.Module, manifest: dict[str, Any], batch: int
) -> float:
    inputs = tensors_of(_inputs(manifest, batch))
    wanted: Tensor = network(*inputs)
    came: Tensor = program(*inputs)
    return float((came - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12))


def _inputs(manifest: dict[str, Any], batch: int) -> Tensor:
    """Random inputs; of tokens, 0 and 1 are in every vocabulary."""
    generator = torch.Generator().manual_seed(batch)
    one = {"shape": manifest["input_shape"], "dtype": "float32"}
    return together(
        [
            torch.rand(batch, *each["shape"], generator=generator)
            if each["dtype"].startswith(("float", "bfloat"))
            else torch.randint(2, (batch, *each["shape"]), generator=generator)
            for each in manifest.get("inputs", [one])
        ]
    )


def _speed(loader: ModuleType, manifest: dict[str, Any], network: nn.Module) -> Speed:
    """Timed at the batch size, threads, runtime and kind of device that the job was about."""
    # A cancelled job's result carries no objective: what it found was never confirmed.
    unknown = {
        "batch": 1,
        "threads": 1,
        "device": "cpu",
        "runtime": "eager",
        "fold_norms": False,
    }
    objective = unknown | manifest["evidence"].get("objective", {})
    batch, runtime = objective["batch"], _runtime(objective)
    device = "cuda" if objective["device"] == "cuda" and torch.cuda.is_available() else "cpu"
    dense: nn.Module = loader.build_dense(manifest["architecture"]).eval()
    example = _inputs(manifest, batch)
    if len(tensors_of(example)) > 1:
        for each in (dense, network):
            accept_batches_(each)
    simplify_(dense, Flow.of(dense, example), example, fold_norms=objective["fold_norms"])
    # The allocator as it comes goes first: once it keeps memory there is no way back.
    as_it_comes, found = (
        race(
            {"dense": dense.to(device), "result": network.to(device)},
            example.to(device),
            runtime=runtime,
            seconds=TIMING_SECONDS,
            keep_freed=keep,
        )
        for keep in (False, True)
    )
    return Speed(
        dense=found.timings["dense"],
        result=found.timings["result"],
        ratio=found.ratios["result"],
        ratio_as_it_comes=as_it_comes.ratios["result"],
        device=device,
        runtime=runtime.name,
        batch=batch,
        threads=runtime.threads,
    )


def _runtime(objective: dict[str, Any]) -> Runtime:
    try:
        return runtime_of(Objective(runtime=objective["runtime"], threads=objective["threads"]))
    except DeviceError:
        return Eager(objective["threads"])


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


@contextmanager
def _unpacked(result: Path) -> Iterator[Path]:
    """The folder itself, or one for a while with what is in the zip."""
    if result.is_dir():
        yield result
        return
    with tempfile.TemporaryDirectory(prefix="ranksearch-") as folder:
        with zipfile.ZipFile(result) as archive:
            archive.extractall(folder)
        yield Path(folder)


def _text(found: Verification) -> Iterator[str]:
    for check in found.checks:
        yield f"{check.name:8} {'ok' if check.holds else 'WRONG':6} {check.detail}"
    if found.speed is not None:
        speed = found.speed
        threads = f"{speed.threads} thread{'s' * (speed.threads != 1)}"
        yield (
            f"{'timing':8} {speed.speedup:5.2f}x {speed.result.p50_ms:.3f} ms against "
            f"{speed.dense.p50_ms:.3f} ms dense, here, on {speed.device} in {speed.runtime}, "
            f"batch {speed.batch}, {threads}; "
            f"{1 / speed.ratio_as_it_comes.median:.2f}x without keep_freed_memory()"
        )


def _document(found: Verification) -> dict[str, Any]:
    speed = found.speed and asdict(found.speed) | {"speedup": found.speed.speedup}
    return {"holds": found.holds, "checks": [asdict(c) for c in found.checks], "speed": speed}


def main() -> None:
    """Verify the result named on the command line."""
    parser = argparse.ArgumentParser(
        prog="ranksearch verify", description="Digests, reload, parity and timing of a result."
    )
    parser.add_argument("result", type=Path, help="the folder or the zip of a job's result")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    arguments = parser.parse_args()
    if not arguments.result.exists():
        parser.error(f"{arguments.result} is not there")
    if arguments.result.is_file() and not zipfile.is_zipfile(arguments.result):
        parser.error(f"{arguments.result} came, a folder or a zip was wanted")
    with _unpacked(arguments.result) as folder:
        found = verify(folder)
    print(json.dumps(_document(found)) if arguments.json else "\n".join(_text(found)))
    sys.exit(0 if found.holds else 1)


if __name__ == "__main__":
    main()
