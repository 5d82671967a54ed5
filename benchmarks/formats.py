"""What goes in: networks written by torch.export.save, read back by our own reader.

`python -m benchmarks.formats`. Each network has its own process: built with random weights,
exported in eval mode for any batch at the smallest input that it allows, written, read, and
compared with the network itself for batches of 1 and 3; attention without the fused calls that
torch makes in eval mode, and never exports. Seconds are those of reading, of one
thread, the trial on fake tensors among them. `layers` counts the convolutions, linear and
recurrent layers that came back as such under their names, and those of the network.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.record import RESULTS, Record, Target
from benchmarks.specimens import NETWORKS, WORDS
from compress.architectures import build
from compress.catalog import TORCHVISION
from compress.errors import CompressError
from compress.program.read import read_program

SEGMENTATION = ("fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")
SIZE = 32  # of images, unless an architecture needs more
SIZES = {
    "alexnet": 63,
    "inception_v3": 75,
    "maxvit_t": 224,
    "vit": 224,
    **dict.fromkeys(SEGMENTATION, 64),
}
STEPS = 7  # of a sequence of words
BATCHES = (1, 3)
LAYERS = (nn.modules.conv._ConvNd, nn.Linear, nn.RNNBase)
TIMEOUT_SECONDS = 1200
WANTED_SHARE = 0.95


def main() -> None:
    """Read every network back and write the results."""
    arguments = _arguments()
    if arguments.one is not None:
        print(json.dumps(read_back(arguments.one)))
        return
    names = arguments.only or [*sorted(TORCHVISION), *SEGMENTATION, *NETWORKS]
    started_at, began = datetime.now(UTC), time.monotonic()
    rows = []
    for name in names:
        if name not in arguments.without:
            rows.append(_in_a_process(name))
            print(*(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    record = Record(
        command="python -m benchmarks.formats",
        threads=1,
        n=1,
        started_at=started_at,
        seconds=time.monotonic() - began,
        rows=rows,
        targets=targets(rows),
    )
    print(record.write("formats", arguments.out))


def read_back(name: str) -> dict[str, Any]:
    """The row of one network."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.backends.mha.set_fastpath_enabled(False)
    model = _network(name).eval()
    _randomise_(model)
    row: dict[str, Any] = {
        "architecture": name,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "model.pt2"
        try:
            _export(model, _example(name, 2), path)
        except Exception as error:  # whatever torch.export raises
            return row | {"failure": f"torch.export: {_first_line(error)}"}
        began = time.process_time()
        try:
            found = read_program(path)
        except CompressError as error:
            return row | {"failure": _first_line(error)}
        row["seconds"] = round(time.process_time() - began, 3)
        row["size_bytes"] = path.stat().st_size
    with torch.no_grad():
        pairs = [
            (_output(model(x)), _output(found(x))) for x in (_example(name, n) for n in BATCHES)
        ]
    layers = {n: type(m) for n, m in model.named_modules() if isinstance(m, LAYERS)}
    modules = dict(found.named_modules())
    return row | {
        "equal": all(torch.equal(ours, original) for original, ours in pairs),
        "error": max(_difference(original, ours) for original, ours in pairs),
        "keys_equal": found.state_dict().keys() == model.state_dict().keys(),
        "layers": sum(isinstance(modules.get(n), LAYERS) for n in layers),
        "layers_wanted": len(layers),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "failure": None,
    }


def targets(rows: Sequence[Mapping[str, Any]]) -> list[Target]:
    """What came of the wishes."""
    equal = sum(row.get("equal", False) for row in rows) / len(rows)
    read = [row for row in rows if row["failure"] is None]
    share = sum(row["layers"] for row in read) / sum(row["layers_wanted"] for row in read)
    return [
        Target("share of networks that compute the same bits", ">=", WANTED_SHARE, round(equal, 4)),
        Target("share of their layers under their names", ">=", WANTED_SHARE, round(share, 4)),
    ]


def _in_a_process(name: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.formats", "--one", name]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command,
            check=False,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return {"architecture": name, "failure": f"not done after {TIMEOUT_SECONDS} s"}
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:]
        return {"architecture": name, "failure": f"exit code {done.returncode}: {said}"}
    return json.loads(done.stdout.splitlines()[-1])


def _network(name: str) -> nn.Module:
    if name in NETWORKS:
        return NETWORKS[name]()
    if name in SEGMENTATION:
        from torchvision import models  # noqa: PLC0415

        return models.get_model(name, weights=None, weights_backbone=None)
    return build(name)


def _randomise_(model: nn.Module) -> None:
    """Other values where a fresh network has zeros and ones: a head of zeros hides every fault."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)


def _example(name: str, batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    if name in NETWORKS and name != "unet":
        return torch.randint(WORDS, (batch, STEPS), generator=generator)
    family, _, _ = name.partition("_")
    size = SIZES.get(name, SIZES.get(family, SIZE))
    return torch.randn(batch, 3, size, size, generator=generator)


def _export(model: nn.Module, example: Tensor, path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=4096)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (example,), dynamic_shapes=({0: batch},))
        torch.export.save(program, path)


def _output(result: Any) -> Tensor:
    """Scores: a segmentation network returns them by name."""
    return result["out"] if isinstance(result, dict) else result


def _difference(original: Tensor, ours: Tensor) -> float:
    return float((ours - original).abs().max() / original.abs().max())


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.formats", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these networks")
    parser.add_argument("--without", nargs="+", default=[], metavar="NAME", help="all but these")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result file")
    parser.add_argument("--one", metavar="NAME", help="print the row of one network")
    return parser.parse_args()


if __name__ == "__main__":
    main()
