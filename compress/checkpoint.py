"""Weights in a safetensors file."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


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
