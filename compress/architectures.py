"""The networks we know by name, and their weights read from a file."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.catalog import ARCHITECTURES, EXAMPLES, TIMM_PREFIX
from compress.errors import ArchitectureError, WeightsError
from compress.load import build_dense
from compress.state_dict import read_state_dict

# Training-time classifiers that a file of weights may hold or have left out.
AUXILIARY = {
    "googlenet": "aux1.",
    "inception_v3": "AuxLogits.",
    "timm/inception_v3": "AuxLogits.",
}

MARK = 1009  # a number of classes that is no width of a hidden layer: it tells the head apart

COLOURS = 3

SHOWN = 10  # differences that an error names


def describe(name: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What `load.build_dense` builds the network from; goes into every manifest.

    Raises:
        ArchitectureError: no such architecture; the message lists names that are close.
    """
    if name in EXAMPLES:
        rows = [list(row) for row in EXAMPLES[name]]
        return {"registry": "examples", "name": name, "rows": rows}
    if name not in ARCHITECTURES:
        close = difflib.get_close_matches(name, sorted(ARCHITECTURES))
        wanted = f"did you mean {' or '.join(close)}?" if close else "see compress/catalog.py"
        raise ArchitectureError(f"architecture {name!r} came, which is unknown: {wanted}")
    settings = dict(arguments or {})
    if name.startswith(TIMM_PREFIX):
        return {
            "registry": "timm",
            "name": name.removeprefix(TIMM_PREFIX),
            "arguments": settings,
        }
    if name in AUXILIARY or name.startswith("vgg"):
        settings.setdefault("init_weights", False)  # seconds spent on values that we replace
    return {"registry": "torchvision", "name": name, "arguments": settings}


def build(name: str, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """The network with random weights, in eval mode.

    Raises:
        ArchitectureError: no such architecture, or its library is not installed here.
    """
    try:
        return build_dense(describe(name, arguments)).eval()
    except ImportError as error:
        raise ArchitectureError(
            f"{name} needs {error.name}, which is not installed here"
        ) from error


def infer_arguments(name: str, shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """The arguments of a network of torchvision or timm, read off the shapes of its weights.

    They are the number of classes, whether the auxiliary classifiers are there, and for timm the
    channels of an image. What leaves no trace in the weights keeps the library's default:
    `transform_input`, above all.

    Args:
        name: an architecture.
        shapes: of each tensor in the state dict, by its key.
    """
    if name in EXAMPLES:
        return {}
    arguments: dict[str, Any] = {}
    if name in AUXILIARY:
        arguments["aux_logits"] = any(key.startswith(AUXILIARY[name]) for key in shapes)
    blueprint = _blueprint(name, arguments | {"num_classes": MARK})
    if name.startswith(TIMM_PREFIX):
        arguments |= _channels(blueprint, shapes)
    wanted = blueprint.state_dict()
    head = [key for key, tensor in wanted.items() if tensor.dim() and len(tensor) == MARK]
    classes = {shapes[key][0] for key in head if shapes.get(key)}
    if len(classes) == 1:
        arguments["num_classes"] = classes.pop()
    return arguments


def _channels(blueprint: nn.Module, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """The channels of an image where they are not three, by the first convolution's weight."""
    first = getattr(blueprint, "default_cfg", {}).get("first_conv")
    key = f"{first[0] if isinstance(first, tuple | list) else first}.weight"
    came, wanted = shapes.get(key, ()), blueprint.state_dict().get(key, torch.empty(0)).shape
    if len(wanted) != 4 or len(came) != 4 or wanted[1] % COLOURS:
        return {}
    each = wanted[1] // COLOURS  # more than one where pixels are folded into channels first
    return {} if came[1] == wanted[1] or came[1] % each else {"in_chans": came[1] // each}


def from_weights(name: str, path: str | Path) -> nn.Module:
    """The network with the weights of a file, in eval mode on the CPU.

    Weights of another floating dtype become those of the architecture.

    Args:
        name: an architecture.
        path: safetensors, or a state dict that `torch.save` wrote, see `compress.state_dict`.

    Raises:
        ArchitectureError: no such architecture.
        WeightsError: the file is malformed, or a tensor is missing, left over, of another
            shape or kind, not finite, or a negative variance. The message names the first ten,
            `differences` all.
    """
    path = Path(path)
    tensors = read_state_dict(path)
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    arguments = infer_arguments(name, shapes)
    model = _blueprint(name, arguments)
    wanted = model.state_dict()
    if differences := list(_differences(wanted, tensors)):
        more = len(differences) - SHOWN
        lines = differences[:SHOWN] + ([f"and {more} more"] if more > 0 else [])
        raise WeightsError(
            f"{path.name} does not hold the weights of {name}: " + "; ".join(lines), differences
        )
    values = {key: tensors[key].to(wanted[key].dtype) for key in wanted}
    model.load_state_dict(values, assign=True)
    if not _is_whole(model):  # what no state dict holds has values where it is built for real
        model = build(name, arguments)
        model.load_state_dict(values, assign=True)
    return model.eval()


def _is_whole(model: nn.Module) -> bool:
    """Whether every tensor has values: parameters, buffers, and what a module just keeps."""
    kept = (value for module in model.modules() for value in vars(module).values())
    tensors = chain(model.parameters(), model.buffers(), kept)
    return not any(isinstance(value, Tensor) and value.is_meta for value in tensors)


def _blueprint(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The network on the meta device, shapes without memory, wherever it can be built there."""
    try:
        with torch.device("meta"):
            return build(name, arguments)
    except (
        NotImplementedError,
        RuntimeError,
    ):  # regnets read their widths off tensors while they are built
        return build(name, arguments)


def _differences(wanted: Mapping[str, Tensor], came: Mapping[str, Tensor]) -> Iterator[str]:
    for key, tensor in wanted.items():
        if key not in came:
            yield f"{key} is missing"
        elif fault := _fault(key, tensor, came[key]):
            yield f"{key} {fault}"
    for key in came.keys() - wanted.keys():
        yield f"{key} is left over"


def _fault(key: str, wanted: Tensor, came: Tensor) -> str | None:
    if came.shape != wanted.shape:
        return f"has shape {tuple(came.shape)}, {tuple(wanted.shape)} was wanted"
    if came.is_floating_point() != wanted.is_floating_point():
        return f"has {came.dtype}, {wanted.dtype} was wanted"
    values = came.to(wanted.dtype)
    if values.is_floating_point() and not values.isfinite().all():
        return f"has {int((~values.isfinite()).sum())} values that are not finite"
    if key.endswith("running_var") and (values < 0).any():
        return "has negative variances"
    return None
