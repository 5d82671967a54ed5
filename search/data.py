"""Images and labels as a job brings them: arrays in one file, or the name of a built-in set.

A network is given uint8 images divided by 255 and float32 images as they are; where `mean` and
`std` are given, the channels are normalised with them afterwards.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compress.errors import CompressError
from compress.load import read_safetensors
from search.errors import DataError

BUILTIN = ("digits", "mnist", "cifar10")
ARRAYS = ("images", "labels", "train_images", "train_labels")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrays:
    """Labelled images to measure the loss on, and training images if the user gives them.

    Images are (N, C, H, W) uint8 or float32, labels (N,) int64.

    Raises:
        DataError: another shape or type, labels that do not fit their images, values that are
            not finite.
    """

    images: Tensor
    labels: Tensor | None = None
    train_images: Tensor | None = None
    train_labels: Tensor | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _check_images("images", self.images)
        _check_labels("labels", self.labels, self.images)
        if self.train_images is not None:
            _check_images("train_images", self.train_images)
            _check_labels("train_labels", self.train_labels, self.train_images)
            came, wanted = tuple(self.train_images.shape[1:]), tuple(self.images.shape[1:])
            if came != wanted:
                raise DataError(f"train_images of shape {came} came, {wanted} as in images wanted")
        channels = self.images.shape[1]
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != channels:
                raise DataError(f"{name} with {len(values)} values came, one a channel: {channels}")
        if self.std is not None and min(self.std) <= 0:
            raise DataError(f"std {self.std} came, positive numbers were wanted")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def inputs(self, images: Tensor) -> Tensor:
        """What the network is given for some of the images, float32 on their device."""
        values = images.float() / 255 if images.dtype == torch.uint8 else images
        if self.mean is not None:
            values = values - values.new_tensor(self.mean)[:, None, None]
        if self.std is not None:
            values = values / values.new_tensor(self.std)[:, None, None]
        return values


def read_arrays(path: Path, description: Mapping[str, Any]) -> Arrays:
    """Read an npz or safetensors file with the arrays `images`, `labels` and `train_...`.

    Args:
        path: the file; its first bytes tell the two formats apart.
        description: `mean` and `std`, lists with a value a channel, where the data want them.

    Raises:
        DataError: the file is neither, an array is missing or unknown, or does not fit.
    """
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    try:
        tensors = _read_npz(path) if is_zip else read_safetensors(path)
    except (ValueError, OSError, BadZipFile, CompressError) as error:
        raise DataError(
            f"the data can be read neither as npz nor as safetensors: {error}"
        ) from error
    if unknown := sorted(set(tensors) - set(ARRAYS)):
        raise DataError(f"arrays {unknown} came, some of {ARRAYS} were wanted")
    if "images" not in tensors:
        raise DataError(f"arrays {sorted(tensors)} came, 'images' was wanted")
    return Arrays(
        images=_images(tensors["images"]),
        labels=_labels(tensors.get("labels")),
        train_images=_images(tensors["train_images"]) if "train_images" in tensors else None,
        train_labels=_labels(tensors.get("train_labels")),
        mean=_channels(description.get("mean")),
        std=_channels(description.get("std")),
    )


def builtin(name: str, data_root: Path) -> Arrays:
    """A set that the service knows by name.

    Args:
        name: `digits` comes with scikit-learn; `mnist` is read from `data_root`/mnist in
            torchvision's layout; `cifar10` from `data_root`/cifar10 as folders
            train/<class>/*.jpg and test/<class>/*.jpg.
        data_root: the folder of the larger sets.

    Raises:
        DataError: no such set, or its files are not there.
    """
    if name == "digits":
        return _digits()
    if name == "mnist":
        return _mnist(data_root / "mnist")
    if name == "cifar10":
        return _cifar10(data_root / "cifar10")
    raise DataError(f"built-in data {name!r} came, one of {BUILTIN} was wanted")


def _check_images(name: str, images: Tensor) -> None:
    if images.ndim != 4 or images.dtype not in (torch.uint8, torch.float32):
        raise DataError(
            f"{name} of shape {tuple(images.shape)} and type {images.dtype} came, "
            "(N, C, H, W) in uint8 or float32 was wanted"
        )
    if 0 in images.shape:
        raise DataError(f"{name} of shape {tuple(images.shape)} came, at least one image wanted")
    if images.dtype == torch.float32 and not images.isfinite().all():
        raise DataError(f"{name} hold values that are not finite")


def _check_labels(name: str, labels: Tensor | None, images: Tensor) -> None:
    if labels is None:
        return
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise DataError(
            f"{name} of shape {tuple(labels.shape)} and type {labels.dtype} came, "
            f"({len(images)},) in int64 was wanted: one class index an image"
        )
    if labels.min() < 0:
        raise DataError(f"{name} hold {int(labels.min())}, class indices from 0 were wanted")


def _images(images: Tensor) -> Tensor:
    """(N, C, H, W): grey images may come without their channel, real values in any precision."""
    images = images[:, None] if images.ndim == 3 else images
    return images.float() if images.is_floating_point() else images


def _labels(labels: Tensor | None) -> Tensor | None:
    """Integers of any width as int64; floats are left for the check to refuse."""
    if labels is None or labels.is_floating_point() or labels.dtype == torch.bool:
        return labels
    return labels.long()


def _channels(values: Any) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in values)


def _read_npz(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def _digits() -> Arrays:
    """1,797 handwritten digits of 8 x 8 pixels, enlarged to 32 x 32."""
    from sklearn.datasets import load_digits  # noqa: PLC0415, slow to import, for this set alone

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    small = torch.from_numpy(bunch.images[order]).float()[:, None] * (255 / 16)
    images = F.interpolate(small, size=(32, 32), mode="bilinear", align_corners=False)
    images = images.round().to(torch.uint8)
    labels = torch.from_numpy(bunch.target[order]).long()
    return Arrays(
        images=images[900:],
        labels=labels[900:],
        train_images=images[:900],
        train_labels=labels[:900],
    )


def _mnist(root: Path) -> Arrays:
    from torchvision.datasets import MNIST  # noqa: PLC0415, for this set alone

    try:
        train, test = (MNIST(str(root), train=part, download=False) for part in (True, False))
    except RuntimeError as error:
        raise DataError(
            "no MNIST in the data folder: the four raw idx files were wanted in "
            f"{root.name}/MNIST/raw"
        ) from error
    return Arrays(
        images=test.data[:, None],
        labels=test.targets,
        train_images=train.data[:, None],
        train_labels=train.targets,
    )


def _cifar10(root: Path) -> Arrays:
    train, train_labels = _image_folder(root / "train")
    test, labels = _image_folder(root / "test")
    return Arrays(images=test, labels=labels, train_images=train, train_labels=train_labels)


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
