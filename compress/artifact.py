"""The result as a folder of files that a stranger can load, check and use.

The keys of `model.safetensors` are those of the network's own state dict: a layer that is still
dense keeps its names, and the stages of a factorised one stand below its name, as `conv2.reduce`,
`conv2.core`. So the weights load into your own class once the plan's layers are factorised in it:

    model = MyNetwork()
    factorize_(model, Plan.from_json(json.dumps(manifest["plan"])))       # compress.surgery
    model.load_state_dict(read_safetensors("model.safetensors"))          # compress.load
"""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compress import load
from compress.batch import tensors_of
from compress.checkpoint import write_safetensors
from compress.errors import ExportError, PlanError
from compress.export import PROGRAM, export_program
from compress.plan import Plan
from compress.program.steps import Program, constants_of
from compress.recurrent.weights import joined
from compress.shape import Stage
from compress.surgery import is_factorized, is_factorized_recurrent, stage_rows, stage_shape
from compress.widths.narrowing import is_narrowed, row_of

README = """\
Load    from load import load; model = load(".")      needs torch; the layers are plain torch layers
Run     torch.export.load("model.pt2").module()(x)    needs nothing but torch, any batch size
Deploy  onnxruntime.InferenceSession("model.onnx")    input "input" (of several "input_0" ...)
Verify  python load.py                                checks every file and runs the network once
Tune    model.train(), then train it as any torch network; the layers are its own
Quant   onnxruntime.quantization.quantize_static("model.onnx", ...), or torchao's quantize_(model)
Keys    a dense layer keeps its names; the stages of a factorised one stand below its name
Speed   holds for the device, runtime, dtype, batch and threads under "evidence" in manifest.json
"""

GRAPH = "model.onnx"
PROGRAMS = (PROGRAM, GRAPH)


def write_result(
    folder: str | Path,
    model: nn.Module,
    plan: Plan,
    *,
    architecture: Mapping[str, Any],
    input_shape: Sequence[int],
    evidence: Mapping[str, Any],
    example: Tensor,
    programs: Collection[str] = PROGRAMS,
) -> list[Path]:
    """Write weights, manifest, loader, programs and a short README into `folder`.

    Equal arguments give equal bytes. Files that stand in the folder already, a report say, are
    listed in the manifest with the others.

    Args:
        folder: made if it is not there.
        model: factorised by `plan`, in eval mode; simplified too, if it is to be.
        plan: its choices.
        architecture: of the dense network, from `architectures.describe`.
        input_shape: of one sample of the first input, (C, H, W) say.
        evidence: what was measured, as JSON.
        example: a batch of real inputs, which the programs are tried on.
        programs: which of `model.pt2` and `model.onnx` to write; each takes seconds.

    Returns:
        The files written, the manifest last: it holds the digests of the others.

    Raises:
        PlanError: the plan names other layers than those that are factorised in `model`.
        ExportError: a program does not compute what the network computes, or what writes it is
            not installed; it names the file.
    """
    folder = Path(folder)
    layers = {
        name: stage_rows(
            Stage(child, stage_shape(stage)) for child, stage in layer.named_children()
        )
        for name, layer in model.named_modules()
        if is_factorized(layer)
    } | {name: [row_of(layer)] for name, layer in model.named_modules() if is_narrowed(layer)}
    recurrent = {
        name: layer.description
        for name, layer in model.named_modules()
        if is_factorized_recurrent(layer)
    }
    weights = {
        joined(name, weight)
        for name, description in recurrent.items()
        for weight in description["weights"]
    }
    # Of a layer that is in no plan, simplifying leaves one stage; of a folded norm, none.
    factorised = {name for name, rows in layers.items() if len(rows) > 1} | weights
    if not factorised <= set(dict(plan)) <= layers.keys() | weights:
        raise PlanError(
            f"the plan names {sorted(dict(plan))}, "
            f"factorised in the network are {sorted(factorised)}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / load.WEIGHTS, folder / "load.py", folder / "README.txt"]
    write_safetensors(written[0], model.state_dict())
    shutil.copyfile(load.__file__, written[1])
    written[2].write_text(README, "utf-8")
    if isinstance(model, Program):
        written += _parts_of_program(folder, model)
    if recurrent:
        written += _sources(folder, load.RECURRENT_MODULES)
    if PROGRAM in programs:
        written.append(folder / PROGRAM)
        evidence = {**evidence, "program_difference": export_program(model, example, written[-1])}
    if GRAPH in programs:
        written.append(folder / GRAPH)
        evidence = {**evidence, "onnx_difference": _export_graph(model, example, written[-1])}
    manifest = folder / "manifest.json"
    files = sorted(path for path in folder.iterdir() if path.is_file() and path != manifest)
    document = {
        "version": load.VERSION,
        "architecture": architecture,
        "plan": json.loads(plan.to_json()),
        "layers": layers,
        **({"recurrent": recurrent} if recurrent else {}),
        "input_shape": list(input_shape),
        "inputs": [
            {"shape": list(each.shape[1:]), "dtype": str(each.dtype).removeprefix("torch.")}
            for each in tensors_of(example)
        ],
        "evidence": evidence,
        "files": {path.name: _digest(path) for path in files},
    }
    manifest.write_text(
        json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n", "utf-8"
    )
    return [*written, manifest]


def _parts_of_program(folder: Path, model: Program) -> Iterator[Path]:
    """What builds a program, and the values that are in no state dict."""
    yield from _sources(folder, load.PROGRAM_MODULES)
    if constants := {name: model.get_buffer(name) for name in constants_of(model)}:
        yield folder / load.CONSTANTS
        write_safetensors(folder / load.CONSTANTS, constants)


def _sources(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Files of ours that load.py reads beside it."""
    for name in names:
        source = Path(load.__file__).parent / f"{load.SOURCES[name].replace('.', '/')}.py"
        yield shutil.copyfile(source, folder / f"{name}.py")


def zip_folder(folder: str | Path, path: str | Path) -> None:
    """Write the files of `folder` into a zip at `path`, elsewhere; equal files, equal bytes."""
    files = sorted(file for file in Path(folder).iterdir() if file.is_file())
    with zipfile.ZipFile(path, "w") as archive:
        for file in files:
            entry = zipfile.ZipInfo(file.name)  # dated 1980, the same on every machine
            entry.external_attr = 0o644 << 16
            with (
                file.open("rb") as source,
                archive.open(entry, "w", force_zip64=True) as target,
            ):
                shutil.copyfileobj(source, target)


def _export_graph(model: nn.Module, example: Tensor, path: Path) -> float:
    """`compress.onnx.network.export_onnx`, where its libraries are installed."""
    try:
        from compress.onnx.network import export_onnx  # noqa: PLC0415, optional
    except ModuleNotFoundError as error:
        raise ExportError(
            f"{error.name} is not installed, which writes {GRAPH}: "
            "pip install 'ranksearch[onnx]', or leave the file out",
            GRAPH,
        ) from error
    return export_onnx(model, example, path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
