"""Samples in memory or on disk, as the inputs of a network, with or without labels.

An input named `images` holds pictures: uint8 is divided by 255, float32 is taken as it is, and
where `mean` and `std` are given the channels are normalised with them afterwards. Any other input,
sequences (N, T, F) or token ids (N, T) say, reaches the network as it is stored.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, Self

import torch
from torch import Tensor

from compress.batch import together
from search.data.declaration import IMAGES
from search.errors import DataError

DTYPES: Final = (torch.float32, torch.int64, torch.bool)
CHUNK: Final = 1024  # samples looked at together

CPU: Final = torch.device("cpu")


class Stored(Protocol):
    """One input of all samples, (N, ...): a tensor, or what is read when it is asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: Tensor, /) -> Tensor:
        """(n, ...) of the samples `index` (n,) int64."""


Read = Callable[[Stored, Tensor], Tensor]
"""Gives the samples of an index."""


def as_stored(stored: Stored, index: Tensor) -> Tensor:
    """(n, ...) of the samples `index` (n,), as they are."""
    return stored[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrays:
    """Samples to measure the loss on, and samples of the training if the user gives them.

    Raises:
        DataError: another shape or type, labels that do not fit their samples, values that are
            not finite.
    """

    inputs: Mapping[str, Stored]
    """What the network takes, each (N, ...), by name in the order of its arguments."""
    labels: Tensor | None = None
    """(N,) int64, a class each."""
    train_inputs: Mapping[str, Stored] | None = None
    train_labels: Tensor | None = None
    mean: tuple[float, ...] | None = None
    """One value a channel of `images`."""
    std: tuple[float, ...] | None = None

    @classmethod
    def of_images(
        cls,
        images: Stored,
        labels: Tensor | None = None,
        *,
        train_images: Stored | None = None,
        train_labels: Tensor | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> Self:
        """Pictures (N, C, H, W), uint8 or float32, as the only input."""
        return cls(
            inputs={IMAGES: images},
            labels=labels,
            train_inputs=None if train_images is None else {IMAGES: train_images},
            train_labels=train_labels,
            mean=mean,
            std=std,
        )

    def __post_init__(self) -> None:
        if not self.inputs:
            raise DataError("no inputs came, at least one was wanted")
        _check_inputs(self.inputs)
        _check_labels("labels", self.labels, len(self))
        if self.train_inputs is not None:
            _check_alike(self.train_inputs, self.inputs)
            _check_inputs(self.train_inputs, "train_")
            _check_labels("train_labels", self.train_labels, self.train_count)
        _check_scaling(self.mean, self.std, self.inputs)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def train_count(self) -> int:
        """Training samples."""
        return 0 if self.train_inputs is None else len(next(iter(self.train_inputs.values())))

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of one sample, by input: (C, H, W) of images."""
        return {name: tuple(stored.shape[1:]) for name, stored in self.inputs.items()}

    @property
    def input_values(self) -> int:
        """Numbers in one sample."""
        return sum(map(math.prod, self.input_shapes.values()))

    @property
    def told(self) -> str:
        """The inputs in an error: images of shape (3, 32, 32)."""
        return " and ".join(f"{name} of shape {s}" for name, s in self.input_shapes.items())

    def batch(
        self,
        index: Tensor,
        device: torch.device = CPU,
        *,
        train: bool = False,
        read: Read = as_stored,
    ) -> Tensor:
        """What the network is given for the samples `index` (n,), on the device.

        Of several inputs it is a `Batch`, which stands where a tensor does.

        Args:
            index: of samples, int64 on the CPU.
            device: where the network is.
            train: whether they are training samples.
            read: of images, by default as they are stored.
        """
        stored = self.train_inputs if train else self.inputs
        assert stored is not None
        return together([self._given(*each, index, device, read) for each in stored.items()])

    def _given(
        self, name: str, stored: Stored, index: Tensor, device: torch.device, read: Read
    ) -> Tensor:
        if name != IMAGES:
            return stored[index].to(device)
        values = read(stored, index).to(device)
        values = values.float() / 255 if values.dtype == torch.uint8 else values
        if self.mean is not None:
            values = values - values.new_tensor(self.mean)[:, None, None]
        if self.std is not None:
            values = values / values.new_tensor(self.std)[:, None, None]
        return values


def _check_inputs(inputs: Mapping[str, Stored], prefix: str = "") -> None:
    counts = {name: len(stored) for name, stored in inputs.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"inputs of {counts} samples came, as many of each were wanted")
    for name, stored in inputs.items():
        if name == IMAGES:
            _check_images(prefix + name, stored)
        else:
            _check_values(prefix + name, stored)


def _check_images(name: str, images: Stored) -> None:
    if len(images.shape) != 4 or images.dtype not in (torch.uint8, torch.float32):
        raise DataError(
            f"{name} of shape {tuple(images.shape)} and type {images.dtype} came, "
            "(N, C, H, W) in uint8 or float32 was wanted"
        )
    if 0 in images.shape:
        raise DataError(f"{name} of shape {tuple(images.shape)} came, at least one image wanted")
    _check_finite(name, images)


def _check_values(name: str, stored: Stored) -> None:
    if stored.dtype not in DTYPES or 0 in stored.shape:
        raise DataError(
            f"{name} of shape {tuple(stored.shape)} and type {stored.dtype} came, "
            "(N, ...) in float32, int64 or bool was wanted"
        )
    _check_finite(name, stored)


def _check_finite(name: str, stored: Stored) -> None:
    if not stored.dtype.is_floating_point:
        return
    for index in torch.split(torch.arange(len(stored)), CHUNK):
        if not stored[index].isfinite().all():
            raise DataError(f"{name} hold values that are not finite")


def _check_alike(train: Mapping[str, Stored], inputs: Mapping[str, Stored]) -> None:
    """Training samples reach the network in the place of the others: the order counts too."""
    if list(train) != list(inputs):
        raise DataError(f"training inputs {list(train)} came, {list(inputs)} were wanted")
    for name, stored in train.items():
        came, wanted = tuple(stored.shape[1:]), tuple(inputs[name].shape[1:])
        if came != wanted:
            raise DataError(f"train_{name} of shape {came} came, {wanted} as in {name} wanted")


def _check_labels(name: str, labels: Tensor | None, count: int) -> None:
    if labels is None:
        return
    if labels.dtype != torch.int64 or tuple(labels.shape) != (count,):
        raise DataError(
            f"{name} of shape {tuple(labels.shape)} and type {labels.dtype} came, "
            f"({count},) in int64 was wanted: one class index a sample"
        )
    if labels.min() < 0:
        raise DataError(f"{name} hold {int(labels.min())}, class indices from 0 were wanted")


def _check_scaling(
    mean: tuple[float, ...] | None, std: tuple[float, ...] | None, inputs: Mapping[str, Stored]
) -> None:
    for name, values in (("mean", mean), ("std", std)):
        if values is None:
            continue
        if IMAGES not in inputs:
            raise DataError(f"{name} came, which is for images; inputs are {list(inputs)}")
        channels = inputs[IMAGES].shape[1]
        if len(values) != channels:
            raise DataError(f"{name} with {len(values)} values came, one a channel: {channels}")
    if std is not None and min(std) <= 0:
        raise DataError(f"std {std} came, positive numbers were wanted")
