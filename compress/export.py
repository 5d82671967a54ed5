"""A network as a `.pt2` archive that plain torch loads, checked against the network itself."""

import copy
import inspect
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from compress.batch import tensors_of
from compress.calibration import evaluating
from compress.errors import ExportError

TOLERANCE = 1e-4  # largest difference allowed, relative to the largest output ...
ROUND_OFFS = 4  # ... or so many of the dtype, where that is more: of float16 and bfloat16
MAX_BATCH = 4096
IMAGES = 4  # axes of a batch of images
PROGRAM = "model.pt2"  # as it is called in a result

# What the exporter writes on a node of the author's files, modules and frames.
TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")


def export_program(model: nn.Module, example: Tensor, path: str | Path) -> float:
    """Write `model` as a program for the CPU, in eval mode, for batches of 1 to 4096.

    Inputs that are no images may also have any length, where the network allows it. Nothing of
    this machine goes into the file: no path, no sample of data.

    Args:
        model: left as it is.
        example: a batch (N, ...) of inputs, or a `Batch` of several; shapes and dtypes alone are
            read, and of integers the values, which the network knows.
        path: of the archive, `.pt2`.

    Returns:
        The largest difference between the file's outputs and the network's, relative to the
        largest output, over random inputs of two batch sizes.

    Raises:
        ExportError: the network cannot be exported, or the difference is above 1e-4, or above
            four round-offs of a dtype of 16 bits; there is no file then.
    """
    path = Path(path)
    original = copy.deepcopy(model).cpu()
    blank = blank_inputs(example)
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    try:
        with exporting(original):
            shapes = arranged(original, [free_sizes(x, batch) for x in blank])
            program = torch.export.export(original, blank, dynamic_shapes=shapes)
            _strip_(program.graph_module)
            with path.open("wb") as file:  # a path would give its name to the files inside
                torch.export.save(program, file)
            exported = torch.export.load(path).module()
            difference = parity(original, exported, example)
    except Exception as error:
        path.unlink(missing_ok=True)
        raise ExportError(f"torch.export failed: {first_line(error)}", PROGRAM) from error
    check_parity(difference, blank[0].dtype, path, PROGRAM)
    return difference


def blank_inputs(example: Tensor) -> tuple[Tensor, ...]:
    """Zeros of the shapes and dtypes of the example's inputs, for a batch of two."""
    return tuple(torch.zeros(2, *x.shape[1:], dtype=x.dtype) for x in tensors_of(example))


def free_sizes(x: Tensor, batch: Any) -> dict[int, Any]:
    """The axes of an input that are free: the batch, and all of what is no image."""
    free = range(1, x.ndim if x.ndim < IMAGES else 1)
    return {0: batch} | dict.fromkeys(free, torch.export.Dim.AUTO)


def arranged(model: nn.Module, sizes: Sequence[Any]) -> tuple[Any, ...]:
    """The free sizes of each input as torch.export takes them: by the arguments of `forward`.

    Inputs that a network takes as `*more` stand in a tuple of their own.
    """
    parameters = [*inspect.signature(model.forward).parameters.values()]
    plain = sum(parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return (*sizes[:plain], tuple(sizes[plain:]))
    return tuple(sizes)


@contextmanager
def exporting(model: nn.Module) -> Iterator[None]:
    """`model` in eval mode, and silence: what an exporter says quotes source code and paths."""
    torch._dynamo.reset()  # torch 2.13: an earlier static export fixes the batch size
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.enter_context(redirect_stderr(io.StringIO()))
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(evaluating(model))
        warnings.simplefilter("ignore")
        yield


def first_line(error: Exception) -> str:
    """What an exporter's error says: what follows quotes source code and paths."""
    return str(error).partition("\n")[0]


def check_parity(difference: float, dtype: torch.dtype, path: Path, name: str) -> None:
    """Remove an exported file that computes something else; `dtype` is that of the inputs.

    Raises:
        ExportError: the difference is above 1e-4, or above four round-offs of a dtype of 16 bits.
    """
    eps = torch.finfo(dtype).eps if dtype.is_floating_point else 0.0
    allowed = max(TOLERANCE, ROUND_OFFS * eps)
    if not difference <= allowed:
        path.unlink()
        raise ExportError(
            f"the exported file differs by {difference:.1e}, {allowed} is allowed", name
        )


def parity(model: nn.Module, other: Callable[..., Tensor], example: Tensor) -> float:
    """Largest difference of the two networks' outputs, relative to the largest output.

    Both see the same random inputs, of the shape and dtype of `example` and batches of 1 and 3.
    """
    generator = torch.Generator().manual_seed(0)
    differences = []
    with torch.no_grad():
        for size in (1, 3):
            inputs = [_random(x, size, generator) for x in tensors_of(example)]
            differences.append(difference_of(model(*inputs), other(*inputs)))
    return max(differences)


def difference_of(expected: Tensor, came: Tensor) -> float:
    """Largest difference of two outputs, relative to the largest output expected."""
    largest = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
    return float((came - expected).abs().max() / largest)


def _random(example: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Inputs like the example; integers are drawn from its own, which the network knows."""
    shape = (size, *example.shape[1:])
    if example.is_floating_point():
        return torch.randn(shape, dtype=example.dtype, generator=generator)
    known = example.flatten()
    return known[torch.randint(len(known), shape, generator=generator)]


def _strip_(graph_module: GraphModule) -> None:
    for module in graph_module.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                for key in TRACES:
                    node.meta.pop(key, None)
