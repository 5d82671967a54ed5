"""The files that the demo hands over, made from one built-in set."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from search.data.arrays import Arrays
from search.data.builtin import builtin
from search.errors import DataError
from search.splits import make_splits


@dataclass(frozen=True, slots=True)
class Files:
    """Data for the service, and what a stranger needs to check its answer."""

    upload: Path
    """images, labels, train_images and train_labels in an .npz, as a user would send them."""
    confirmation: Path
    """The confirmation split as networks take it: float32 images, int64 labels; safetensors."""


def write(name: str, data_root: Path, folder: Path) -> Files:
    """Write both files of a built-in set into `folder`."""
    arrays = _builtin(name, data_root)
    labels, train, train_labels = arrays.labels, arrays.train_inputs, arrays.train_labels
    assert labels is not None
    assert train is not None
    assert train_labels is not None
    files = Files(folder / f"{name}.npz", folder / "confirmation.safetensors")
    np.savez(
        files.upload,
        images=arrays.inputs["images"][torch.arange(len(arrays))].numpy(),
        labels=labels.numpy(),
        train_images=train["images"][torch.arange(arrays.train_count)].numpy(),
        train_labels=train_labels.numpy(),
    )
    chosen = make_splits(arrays, needs_labels=True).confirmation
    save_file({"images": arrays.batch(chosen), "labels": labels[chosen]}, files.confirmation)
    return files


def _builtin(name: str, data_root: Path) -> Arrays:
    """The set; MNIST is downloaded by torchvision where it is not there.

    Raises:
        DataError: it is not there and cannot be downloaded.
    """
    try:
        return builtin(name, data_root)
    except DataError:
        if name != "mnist":
            raise
    from torchvision.datasets import MNIST  # noqa: PLC0415 (for this case alone)

    try:
        MNIST(str(data_root / "mnist"), download=True)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"MNIST is not in {data_root / 'mnist'} and cannot be downloaded: set "
            "RANKSEARCH_DATA_ROOT to the folder that holds mnist/"
        ) from error
    return builtin(name, data_root)
