"""Transforms applied to pictures in memory, a batch at a time."""

from collections.abc import Sequence
from typing import assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from search.data.transforms import CenterCrop, Channels, Resize, Transform, shape_after

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Transformed:
    """Pictures that are transformed when they are asked for, so that none are held twice."""

    def __init__(self, images: Tensor, transforms: Sequence[Transform]) -> None:
        """Keep (N, C, H, W) images of any dtype.

        Raises:
            DataError: a transform cannot be applied to them.
        """
        self._images = images
        self._transforms = transforms
        channels, height, width = images.shape[1:]
        self.shape = (len(images), *shape_after(transforms, (channels, height, width)))
        self.dtype = images.dtype

    def __len__(self) -> int:
        return len(self._images)

    @property
    def uncropped(self) -> "Transformed":
        """The pictures without the crop that comes last, if one does."""
        match self._transforms:
            case [*before, CenterCrop()]:
                return Transformed(self._images, before)
        return self

    def __getitem__(self, index: Tensor) -> Tensor:
        """(n, C, H, W) of the pictures `index` (n,)."""
        return transformed(self._images[index], self._transforms)


def transformed(images: Tensor, transforms: Sequence[Transform]) -> Tensor:
    """(N, C, H, W) images after the transforms, in their dtype: bytes are rounded."""
    for transform in transforms:
        match transform:
            case Channels(count):
                images = _channels(images, count)
            case Resize():
                channels, height, width = images.shape[1:]
                _, *size = transform.shape((channels, height, width))
                images = _resized(images, size)
            case CenterCrop((height, width)):
                top = round((images.shape[2] - height) / 2)
                left = round((images.shape[3] - width) / 2)
                images = images[:, :, top : top + height, left : left + width]
            case _:
                assert_never(transform)
    return images


def _channels(images: Tensor, count: int) -> Tensor:
    if images.shape[1] == count:
        return images
    if count == 3:
        return images.expand(-1, 3, -1, -1)
    luma = torch.einsum("nchw,c->nhw", images.float(), torch.tensor(LUMA, device=images.device))
    return _as(luma[:, None], images.dtype)


def _resized(images: Tensor, size: Sequence[int]) -> Tensor:
    if list(images.shape[2:]) == list(size):
        return images
    real = F.interpolate(images.float(), list(size), mode="bilinear", antialias=True)
    return _as(real, images.dtype)


def _as(real: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype == torch.uint8:
        return real.round().clamp(0, 255).to(torch.uint8)
    return real.to(dtype)
