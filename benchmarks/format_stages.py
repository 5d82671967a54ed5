"""One network written, read, factorised and written again: two stages, a process for each.

What they find is part of a row, with `failure`, None if nothing failed. Inputs and outputs go from
one stage to the next in files: `dense.safetensors` and `factorised.safetensors`.
"""

import json
import resource
import time
import warnings
from collections.abc import Callable, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.format_networks import example, specimen
from compress.artifact import PROGRAMS, write_result
from compress.calibration import trace
from compress.errors import CompressError, ExportError
from compress.export import MAX_BATCH, difference_of
from compress.layers import LayerReport, inspect
from compress.methods.registry import METHODS
from compress.plan import Choice, Plan
from compress.program.read import read_program
from compress.program.steps import document_of
from compress.surgery import factorize_

BATCHES: Final = (1, 3)
EXPORTED_BATCH: Final = 2
LAYERS: Final = (nn.modules.conv._ConvNd, nn.Linear, nn.RNNBase)
FACTORISED: Final = 3  # layers of a network
WIDEST: Final = 300_000  # parameters of one of them: a wider one takes long to decompose
ORDER: Final = ("tucker2", "svd", "spatial_svd")


def export(name: str, folder: Path) -> dict[str, Any]:
    """Write the network for any batch, and what it computes for two.

    Attention goes without the fused calls that torch makes in eval mode, and never exports.
    """
    torch.backends.mha.set_fastpath_enabled(False)
    model = specimen(name)
    path = folder / "dense.pt2"
    row = {"parameters": sum(parameter.numel() for parameter in model.parameters())}
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(
                model, (example(name, EXPORTED_BATCH),), dynamic_shapes=({0: batch},)
            )
        except Exception as error:  # whatever torch.export raises
            return row | {"failure": f"torch.export: {told(error)}"}
        torch.export.save(program, path)
    keep(model, name, folder / "dense.safetensors")
    (folder / "keys.json").write_text(json.dumps(sorted(model.state_dict())))
    (folder / "layers.json").write_text(json.dumps(layers_of(model)))
    return row | {"dense_bytes": path.stat().st_size, "failure": None}


def compress(name: str, folder: Path) -> dict[str, Any]:
    """Read the network, compare it bit by bit, factorise three layers and write the result.

    `layers` counts the convolutions, linear and recurrent layers that came back as such under
    their names, out of `layers_wanted`.
    """
    began = time.process_time()
    try:
        model = read_program(folder / "dense.pt2")
    except CompressError as error:
        return {"failure": f"read_program: {told(error)}"}
    row: dict[str, Any] = {"read_seconds": round(time.process_time() - began, 3)}
    row |= compared(model, load_file(folder / "dense.safetensors"))
    wanted = json.loads((folder / "layers.json").read_text())
    found = layers_of(model)
    row |= {
        "keys_equal": sorted(model.state_dict()) == json.loads((folder / "keys.json").read_text()),
        "layers": sum(layer in found for layer in wanted),
        "layers_wanted": len(wanted),
    }
    architecture = dict(document_of(model))
    try:
        plan = small_plan(model, example(name, 1))
        factorize_(model, plan)
    except CompressError as error:
        return row | {"failure": f"factorize_: {told(error)}"}
    keep(model, name, folder / "factorised.safetensors")
    row |= {"factorised": len(plan)}
    return row | _written(name, model, plan, architecture, folder / "result")


def _written(
    name: str, model: nn.Module, plan: Plan, architecture: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Write the result, without the programs that fail: each says why."""
    began, failures = time.process_time(), dict[str, str]()
    while True:
        try:
            files = write_result(
                folder,
                model,
                plan,
                architecture=architecture,
                input_shape=example(name, 1).shape[1:],
                evidence={},
                example=example(name, EXPORTED_BATCH),
                programs=[program for program in PROGRAMS if program not in failures],
            )
        except ExportError as error:
            failures[error.file] = f"{error.file}: {told(error)}"
        except CompressError as error:
            return {"failure": f"write_result: {told(error)}"}
        else:
            break
    return {
        "write_seconds": round(time.process_time() - began, 3),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "sizes": {path.name: path.stat().st_size for path in files},
        "failure": "; ".join(failures.values()) or None,
    }


def small_plan(model: nn.Module, x: Tensor) -> Plan:
    """The first, a middle and the last of the layers that are no wider than allowed.

    Each has half of the ranks it could have, by the first of the methods, taken in turn, that
    applies. Where all layers are wider, the narrowest is taken.

    Args:
        model: a network.
        x: (N, ...), a batch of its inputs: a layer that is never called is left out.
    """
    called = trace(model, x)
    open_ = [r for r in inspect(model) if r.reason is None and r.shape and r.name in called]
    narrow = [r for r in open_ if r.shape and r.shape.parameters <= WIDEST]
    if not narrow:
        narrow = sorted(open_, key=lambda r: r.shape.parameters if r.shape else 0)[:1]
    places = {0, len(narrow) // 2, len(narrow) - 1}
    turns = cycle(range(len(ORDER)))
    choices = {r.name: _choice(r, next(turns)) for r in (narrow[i] for i in sorted(places))}
    return Plan({name: choice for name, choice in choices.items() if choice is not None})


def _choice(report: LayerReport, turn: int) -> Choice | None:
    assert report.shape is not None
    for method in (*ORDER[turn:], *ORDER[:turn]):
        if method not in report.refusals:
            limits = METHODS[method].limits(report.shape)
            return Choice(method, tuple(max(1, limit // 2) for limit in limits))
    return None


def layers_of(model: nn.Module) -> list[str]:
    """The names of the convolutions, linear and recurrent layers."""
    return [name for name, module in model.named_modules() if isinstance(module, LAYERS)]


@torch.no_grad()
def keep(model: nn.Module, name: str, path: Path) -> None:
    """Write the inputs and outputs of two batches."""
    tensors = {}
    for batch in BATCHES:
        x = example(name, batch)
        tensors |= {f"input{batch}": x, f"output{batch}": model(x).contiguous()}
    save_file(tensors, path)


@torch.no_grad()
def compared(model: Callable[[Tensor], Tensor], kept: Mapping[str, Tensor]) -> dict[str, Any]:
    """Whether the outputs have the same bits, and the largest difference, relative."""
    pairs = [(kept[f"output{n}"], model(kept[f"input{n}"])) for n in BATCHES]
    return {
        "read_equal": all(torch.equal(came, wanted) for wanted, came in pairs),
        "read_error": max(difference_of(wanted, came) for wanted, came in pairs),
    }


def told(error: Exception) -> str:
    """The first line of an error, with its type and notes."""
    notes = "; ".join(getattr(error, "__notes__", []))
    said = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
    return f"{said} ({notes[:100]})" if notes else said
