"""Weights in a safetensors file, and networks rebuilt from one and a plan."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from compress.errors import CompressError, WeightsError
from compress.layers import layer_named, shape_of
from compress.load import assign_, build_dense, build_layer, read_safetensors, replace_
from compress.methods.registry import method_named
from compress.plan import Plan
from compress.surgery import stage_rows


def write_safetensors(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by name, those of a state dict above all; equal ones give equal bytes.

    A tensor that stands under two names is written twice, so that each name can be read alone.
    """
    values, storages = {}, set()
    for key, tensor in tensors.items():
        value = tensor.cpu().contiguous()
        storage = value.untyped_storage().data_ptr()
        values[key] = value.clone() if storage in storages else value
        storages.add(storage)
    save_file(values, path)


def restore(architecture: Mapping[str, Any], plan: Plan, path: str | Path) -> nn.Module:
    """The factorised network that `write_safetensors` wrote, on the CPU, in eval mode.

    Args:
        architecture: of the dense network, from `architectures.describe`.
        plan: the one that the network was factorised by.
        path: its weights.

    Raises:
        PlanError, RankError, UnsupportedLayerError: the plan does not fit the architecture.
        WeightsError: the weights do not fit the plan, or the file is malformed.
    """
    model = build_dense(architecture)
    layers = {}
    for name, choice in plan:
        try:
            shape = shape_of(layer_named(model, name))
            layers[name] = method_named(choice.method).stages(shape, choice.ranks)
        except CompressError as error:
            error.add_note(f"in layer {name!r} with {choice}")
            raise
    replace_(model, {name: build_layer(stage_rows(stages)) for name, stages in layers.items()})
    try:
        assign_(model, read_safetensors(path))
    except (ValueError, RuntimeError) as error:
        raise WeightsError(str(error)) from error
    return model.eval()
