"""The sets that the service knows by name."""

from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from search.data.arrays import Arrays
from search.data.declaration import Declaration
from search.data.files import arranged
from search.errors import DataError

BUILTIN: Final = ("digits", "mnist", "cifar10")

Tensors = dict[str, Tensor]
"""Arrays by the names that a file would give them."""


def builtin(name: str, data_root: Path, declaration: Declaration | None = None) -> Arrays:
    """A set that the service knows by name.

    Args:
        name: `digits` comes with scikit-learn; `mnist` is read from `data_root`/mnist in
            torchvision's layout; `cifar10` from `data_root`/cifar10 as folders
            train/<class>/*.jpg and test/<class>/*.jpg.
        data_root: the folder of the larger sets.
        declaration: transforms, mean and std; by default the images are taken as they are.

    Raises:
        DataError: no such set, its files are not there, or it cannot be transformed so.
    """
    if name == "digits":
        tensors = _digits()
    elif name == "mnist":
        tensors = _mnist(data_root / "mnist")
    elif name == "cifar10":
        tensors = _cifar10(data_root / "cifar10")
    else:
        raise DataError(f"built-in data {name!r} came, one of {BUILTIN} was wanted")
    return arranged(tensors, declaration or Declaration())


def _digits() -> Tensors:
    """1,797 handwritten digits of 8 x 8 pixels, enlarged to 32 x 32."""
    from sklearn.datasets import load_digits  # noqa: PLC0415, slow to import, for this set alone

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    small = torch.from_numpy(bunch.images[order]).float()[:, None] * (255 / 16)
    images = F.interpolate(small, size=(32, 32), mode="bilinear", align_corners=False)
    images = images.round().to(torch.uint8)
    labels = torch.from_numpy(bunch.target[order]).long()
    return {
        "images": images[900:],
        "labels": labels[900:],
        "train_images": images[:900],
        "train_labels": labels[:900],
    }


def _mnist(root: Path) -> Tensors:
    from torchvision.datasets import MNIST  # noqa: PLC0415, for this set alone

    try:
        train, test = (MNIST(str(root), train=part, download=False) for part in (True, False))
    except RuntimeError as error:
        raise DataError(
            "no MNIST in the data folder: the four raw idx files were wanted in "
            f"{root.name}/MNIST/raw"
        ) from error
    return {
        "images": test.data[:, None],
        "labels": test.targets,
        "train_images": train.data[:, None],
        "train_labels": train.targets,
    }


def _cifar10(root: Path) -> Tensors:
    train, train_labels = _image_folder(root / "train")
    test, labels = _image_folder(root / "test")
    return {
        "images": test,
        "labels": labels,
        "train_images": train,
        "train_labels": train_labels,
    }


def _image_folder(folder: Path) -> tuple[Tensor, Tensor]:
    """Every <class>/*.jpg below `folder`, the classes in the order of their names."""
    from torchvision.datasets.folder import pil_loader  # noqa: PLC0415, for this set alone

    classes = sorted(path for path in folder.glob("*") if path.is_dir())
    files = [(path, label) for label, at in enumerate(classes) for path in sorted(at.glob("*.jpg"))]
    if not files:
        raise DataError(
            f"no images in {folder.parent.name}/{folder.name} of the data folder: "
            "<class>/*.jpg were wanted"
        )
    images = np.stack([np.asarray(pil_loader(path)) for path, _ in files])
    labels = torch.tensor([label for _, label in files])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels
