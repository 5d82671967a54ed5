"""Load a network that ranksearch made faster: needs torch, and nothing of ranksearch.

    python load.py [FOLDER]      check every file, load the network, run it once on zeros

    from load import keep_freed_memory, load
    keep_freed_memory()          # on Linux: a small, fast network may be twice as fast
    model = load("FOLDER")       # a torch.nn.Module in eval mode

Beside this file stand `model.safetensors`, the weights, and `manifest.json`, which names the
architecture of the dense network and the plain torch layers that stand in place of each layer
that was changed: several where it was factorised, one of fewer channels where it was narrowed,
none where it is done by the layer before, as a batch norm can be. Networks of torchvision and timm
are built by these, without a download; one that came as a program by `steps.py`, which then stands
here too, as `recurrent.py` and `projection.py` do where weights of an LSTM, GRU or RNN were
factorised. For a network that was never described, pass the function that builds it:
`load("FOLDER", factory=MyNetwork)`.
"""

import ctypes
import hashlib
import importlib
import importlib.util
import json
import math
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

VERSION = 1

WEIGHTS = "model.safetensors"
CONSTANTS = "constants.safetensors"  # of a program: tensors that are no part of its state dict
PROGRAM_MODULES = ("steps", "operators")  # files that build one
RECURRENT_MODULES = ("recurrent", "projection")  # files that build factorised recurrent layers
SOURCES = {  # what they are within ranksearch
    "steps": "program.steps",
    "operators": "program.operators",
    "recurrent": "recurrent.layer",
    "projection": "recurrent.projection",
}

DTYPES = {
    "BF16": torch.bfloat16,
    "BOOL": torch.bool,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "I8": torch.int8,
    "U8": torch.uint8,
}

TIMM_ARGUMENTS = {"aux_logits", "in_chans", "num_classes"}

MAX_HEADER_BYTES = 100_000_000

# Of glibc's malloc.h: the parameters of mallopt.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4

Rows = Iterable[Sequence[Any]]  # (name, type, arguments) of each layer, in order


class FactorizedLayer(nn.Sequential):
    """Plain layers in a row that stand in place of one dense layer; none are an identity.

    Known by its mark, not by its class: each result brings a file like this one, with a class of
    its own.
    """

    stands_in = True


class Grid(nn.Module):
    """Features parted into slices, of each group by itself: the layer behind serves every slice.

    Of so many slices, each has every so-manieth feature. They join the batch, (N, C, *size) to
    (N * slices, channels, *size); with `axes` 0, before a linear layer, they are rows, (..., C) to
    (..., slices, channels).
    """

    def __init__(self, channels: int, slices: int, axes: int = 0, groups: int = 1) -> None:
        super().__init__()
        self.channels, self.slices, self.axes, self.groups = channels, slices, axes, groups

    def forward(self, x: Tensor) -> Tensor:
        """The values of `x`, none changed."""
        if not self.axes:
            return torch.unflatten(x, -1, (self.channels, self.slices)).transpose(-1, -2)
        if x.ndim != self.axes + 2:
            raise ValueError(f"a tensor of {tuple(x.shape)} came; a batch (N, C, *size) was wanted")
        parts = torch.unflatten(x, 1, (self.groups, self.channels, self.slices))
        return parts.movedim(3, 1).flatten(2, 3).flatten(0, 1)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"{self.channels}, {self.slices}, axes={self.axes}, groups={self.groups}"


class Flat(nn.Module):
    """Slices as features again, one slice after the other, and a bias for each feature."""

    def __init__(
        self, channels: int, slices: int, axes: int = 0, groups: int = 1, bias: bool = False
    ) -> None:
        super().__init__()
        self.channels, self.slices, self.axes, self.groups = channels, slices, axes, groups
        self.bias = nn.Parameter(torch.zeros(groups * slices * channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """What `Grid` parted, as one again."""
        if self.axes:
            parts = torch.unflatten(x, 0, (x.shape[0] // self.slices, self.slices))
            parts = torch.unflatten(parts, 2, (self.groups, self.channels))
            x = parts.transpose(1, 2).flatten(1, 3)
        else:
            x = x.flatten(-2)
        return x if self.bias is None else x + self.bias.reshape(-1, *[1] * self.axes)

    def extra_repr(self) -> str:
        """The arguments."""
        bias = self.bias is not None
        return (
            f"{self.channels}, {self.slices}, axes={self.axes}, groups={self.groups}, bias={bias}"
        )


# What a row of layers may name, so that a manifest builds these and calls nothing else.
LAYERS: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (
        nn.AdaptiveAvgPool2d,
        nn.BatchNorm1d,
        nn.BatchNorm2d,
        nn.BatchNorm3d,
        nn.Conv1d,
        nn.Conv2d,
        nn.Conv3d,
        nn.ConvTranspose1d,
        nn.ConvTranspose2d,
        nn.ConvTranspose3d,
        Flat,
        Grid,
        nn.Dropout,
        nn.Flatten,
        nn.Linear,
        nn.MaxPool2d,
        nn.ReLU,
    )
}


def load(folder: str | Path, factory: Callable[[], nn.Module] | None = None) -> nn.Module:
    """The network in `folder`, on the CPU, in eval mode.

    Args:
        folder: where `manifest.json` and `model.safetensors` stand.
        factory: builds the dense network; needed where the architecture is your own.

    Raises:
        ValueError: a file is malformed, or the files do not fit the architecture.
        RuntimeError: tensors are missing, left over or of another shape; it names them.
    """
    folder = Path(folder)
    manifest = read_manifest(folder / "manifest.json")
    model = build_dense(manifest["architecture"]) if factory is None else factory()
    replace_(model, {name: build_stand_in(rows) for name, rows in manifest["layers"].items()})
    replace_(model, build_recurrent(manifest.get("recurrent", {})))
    assign_(model, read_safetensors(folder / WEIGHTS))
    if (folder / CONSTANTS).exists():
        for name, values in read_safetensors(folder / CONSTANTS).items():
            model.get_buffer(name).copy_(values)
    return model.eval()


def keep_freed_memory() -> bool:
    """Have the C library keep what is freed for the next call, in this process from now on.

    glibc gives large blocks back to the system when they are freed, so that each call of a
    network has the pages of its activations made and cleared anew. That costs the same whether
    the network is fast or slow: of a fast one it can be half of the time. Costs memory: the
    process stays as large as it ever was. The environment variables MALLOC_MMAP_MAX_=0 and
    MALLOC_TRIM_THRESHOLD_=-1 do the same from outside.

    Returns:
        False where the C library is not glibc; nothing has changed then.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library; Windows raises TypeError
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))


def build_dense(architecture: Mapping[str, Any]) -> nn.Module:
    """The network before compression, its weights not yet set.

    Args:
        architecture: {"registry": "examples", "rows"}, or {"registry", "name", "arguments"} of
            the registries torchvision and timm, or the document of a program; see `steps.py`.

    Raises:
        ValueError: another registry, or a name that is no classification network there.
        ImportError: the library of that registry is not installed.
    """
    registry, name = architecture["registry"], architecture["name"]
    if registry == "examples":
        return build_sequential(architecture["rows"])
    if registry == "timm":
        import timm  # noqa: PLC0415 (only networks of timm need it)

        # Whatever else it takes may read a file or ask the network.
        if name not in timm.list_models() or not architecture["arguments"].keys() <= TIMM_ARGUMENTS:
            raise ValueError(f"timm has no network {name!r} of {architecture['arguments']}")
        return timm.create_model(name, pretrained=False, **architecture["arguments"])
    if registry == "torchvision":
        from torchvision import models  # noqa: PLC0415 (only networks of torchvision need it)

        if name not in models.list_models(module=models):
            raise ValueError(f"torchvision has no classification network {name!r}")
        return models.get_model(name, weights=None, **architecture["arguments"])
    if registry == "program":
        steps, operators = map(_beside, PROGRAM_MODULES)
        program: nn.Module = steps.build(architecture, operators.OPERATORS)
        return program
    raise ValueError(
        f"the registry {registry!r} of {name!r} is unknown here: "
        "pass the function that builds the dense network, load(folder, factory=...)"
    )


def _beside(name: str) -> ModuleType:
    """A module that ships with this one, wherever this one was loaded from."""
    if __package__:
        return importlib.import_module(f"{__package__}.{SOURCES[name]}")
    path = Path(__file__).with_name(f"{name}.py")
    name = f"ranksearch_{name}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where copies and pickles of what it defines look for it
    spec.loader.exec_module(module)
    return module


def build_sequential(rows: Rows) -> nn.Sequential:
    """The layers of `rows` one after the other, each under its name."""
    return nn.Sequential(_named_layers(rows))


def build_layer(rows: Rows) -> FactorizedLayer:
    """The stages of one factorised layer, without values: to be loaded with assign=True."""
    with torch.device("meta"):
        return FactorizedLayer(_named_layers(rows))


def build_stand_in(rows: Rows) -> nn.Module:
    """What stands in place of a dense layer: its stages, or one plain layer if it has no name."""
    rows = list(rows)
    if [name for name, _, _ in rows] != [""]:
        return build_layer(rows)
    with torch.device("meta"):
        return _named_layers(rows)[""]


def build_recurrent(descriptions: Mapping[str, Any]) -> dict[str, nn.Module]:
    """Factorised recurrent layers by name, without values: to be loaded with assign=True."""
    if not descriptions:
        return {}
    recurrent, projection = map(_beside, RECURRENT_MODULES)
    with torch.device("meta"):
        return {
            name: recurrent.build(description, projection.Projection)
            for name, description in descriptions.items()
        }


def _named_layers(rows: Rows) -> OrderedDict[str, nn.Module]:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, kind, arguments in rows:
        if kind not in LAYERS:
            raise ValueError(f"layer {name!r} is a {kind!r}; known are {', '.join(LAYERS)}")
        layers[name] = LAYERS[kind](**arguments)
    return layers


def replace_(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Put each of `layers` in place of the layer of that name: all of them, or none.

    What was shared stays shared: a layer under several names is replaced under each of them, and
    where layers share a weight or a bias, those that replace them share theirs.

    Raises:
        ValueError: a name is not that of a single layer in `model`.
    """
    single = {
        name: layer
        for name, layer in model.named_modules()
        if {child for child, _ in layer.named_children()} <= {"parametrizations"}
    }
    if unknown := sorted(set(layers) - set(single)):
        raise ValueError(f"{type(model).__name__} has no single layers of the names {unknown}")
    _tie_({single[name]: layer for name, layer in layers.items()})
    names = defaultdict(list)
    for name, module in model.named_modules(remove_duplicate=False):
        names[module].append(name)
    for name, layer in layers.items():
        for each in names[single[name]]:
            model.set_submodule(each, layer)


def _tie_(layers: Mapping[nn.Module, nn.Module]) -> None:
    """Have `layers`, dense -> what replaces it, share the parameters that the dense ones share."""
    owners: dict[nn.Parameter, nn.Module] = {}
    for dense, layer in layers.items():
        for key, parameter in dense.named_parameters(recurse=False):
            owner = owners.setdefault(parameter, layer)
            for name, shared in owner.named_parameters():
                if owner is not layer and name.endswith(key):
                    stage, _, _ = name.rpartition(".")
                    setattr(layer.get_submodule(stage), key, shared)


def assign_(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a network the values of its state dict; parameters that it shares stay shared.

    Raises:
        ValueError: the values of a shared parameter differ from name to name.
        RuntimeError: tensors are missing, left over or of another shape; it names them.
    """
    owners: dict[nn.Parameter, list[tuple[str, nn.Module, str]]] = defaultdict(list)
    for name, module in model.named_modules(remove_duplicate=False):
        for key, parameter in module.named_parameters(name, recurse=False):
            owners[parameter].append((key, module, key.rpartition(".")[2]))
    model.load_state_dict(tensors, assign=True)
    for (first, owner, name), *others in owners.values():
        for key, module, attribute in others:
            if not torch.equal(tensors[key], tensors[first]):
                raise ValueError(f"{key!r} and {first!r} are one parameter; their values differ")
            setattr(module, attribute, owner.get_parameter(name))


def read_manifest(path: str | Path) -> dict[str, Any]:
    """What `manifest.json` says.

    Raises:
        ValueError: no JSON object, another version, or a part is missing.
    """
    manifest = json.loads(Path(path).read_text("utf-8"))
    parts = {"version", "architecture", "layers", "input_shape", "files"}
    if not isinstance(manifest, dict) or not parts <= manifest.keys():
        raise ValueError(f"{path} is no manifest: one is a JSON object with {sorted(parts)}")
    if manifest["version"] != VERSION:
        raise ValueError(f"{path} has version {manifest['version']!r}; {VERSION} was wanted")
    return manifest


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on the CPU.

    The format: 8 bytes of header length, a JSON header that gives the dtype, shape and bytes of
    each tensor, and the bytes; they leave no gap and share nothing.

    Raises:
        ValueError: the file is cut short, or is not what its header says.
    """
    path = Path(path)
    tensors = {}
    with path.open("rb") as file:
        size = path.stat().st_size - 8
        length = int.from_bytes(file.read(8), "little")
        if length > min(size, MAX_HEADER_BYTES):
            raise ValueError(f"{path}: a header of {length} bytes in a file of {size + 8}")
        position, size = 0, size - length
        for begin, end, name, dtype, shape in _entries(path, file.read(length)):
            if begin != position or end > size:
                raise ValueError(
                    f"{path}: {name!r} lies at bytes {begin} to {end}; "
                    f"it was expected at {position}, and there are {size}"
                )
            if end - begin != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{path}: {name!r} of {dtype} {shape} has {end - begin} bytes")
            values = bytearray(end - begin)
            file.readinto(values)
            flat = torch.frombuffer(values, dtype=dtype) if values else torch.empty(0, dtype=dtype)
            tensors[name] = flat.reshape(shape)
            position = end
    if position != size:
        raise ValueError(f"{path}: {size - position} bytes after the last tensor")
    return tensors


def _entries(path: Path, header: bytes) -> list[tuple[int, int, str, torch.dtype, list[int]]]:
    """(begin, end, name, dtype, shape) of each tensor, in the order of the file."""
    try:
        fields = json.loads(header)
        fields.pop("__metadata__", None)
        entries = [
            (*map(_natural, field["data_offsets"]), name, DTYPES[field["dtype"]], field["shape"])
            for name, field in fields.items()
        ]
        for _, _, _, _, shape in entries:
            shape[:] = map(_natural, shape)
        return sorted(entries, key=lambda entry: entry[:2])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: malformed header: {error!r}") from error


def _natural(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise ValueError(f"{number!r} is no size or position")
    return number


def main() -> None:
    """Check and load the result in the folder of the command line, or beside this file."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    manifest = read_manifest(folder / "manifest.json")
    present = {name: folder / name for name in manifest["files"] if (folder / name).exists()}
    for name, path in present.items():
        if hashlib.sha256(path.read_bytes()).hexdigest() != manifest["files"][name]:
            sys.exit(f"{name} is not the file that was written: its SHA-256 differs")
    model = load(folder)
    parameters = list(model.parameters())
    one = {"shape": manifest["input_shape"], "dtype": str(parameters[0].dtype)[len("torch.") :]}
    zeros = [
        torch.zeros(1, *each["shape"], dtype=getattr(torch, each["dtype"]))
        for each in manifest.get("inputs", [one])
    ]
    with torch.inference_mode():
        output = model(*zeros)
    print(f"{len(present)} of {len(manifest['files'])} files are here, each as it was written")
    factorised = sum(len(rows) > 1 for rows in manifest["layers"].values())
    print(f"{factorised + len(manifest.get('recurrent', {}))} layers factorised")
    print(f"{sum(p.numel() for p in parameters):,} parameters")
    print(f"{', '.join(str(tuple(each.shape)) for each in zeros)} -> {tuple(output.shape)}")


if __name__ == "__main__":
    main()
