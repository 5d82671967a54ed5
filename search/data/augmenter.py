"""Pictures as a network learns from them: each a little different each time."""

import torch
from torch import Tensor

from search.config import Augmentation
from search.data.arrays import Stored
from search.data.transformed import Transformed


class Augmenter:
    """Reads pictures, and varies them by what its generator draws."""

    def __init__(self, config: Augmentation, generator: torch.Generator) -> None:
        """Keep what is to be done, and a generator of the CPU."""
        self._config = config
        self._generator = generator

    def read(self, images: Stored, index: Tensor) -> Tensor:
        """(n, C, H, W) of the pictures `index` (n,), in the shape and dtype that they have.

        Pictures of an archive are kept as they are cropped: of those no more than that is seen.
        """
        wide = images.uncropped if isinstance(images, Transformed) else images
        _, _, height, width = images.shape
        return varied(wide[index], (height, width), self._config, self._generator)


def varied(
    images: Tensor, size: tuple[int, int], config: Augmentation, generator: torch.Generator
) -> Tensor:
    """A crop from about the middle of each image, perhaps mirrored.

    Args:
        images: (N, C, H, W) of any dtype, on the CPU.
        size: (height, width) of the crops, as large as the images at most.
        config: how far from the middle, and whether half of them are mirrored.
        generator: of the CPU.

    Returns:
        (N, C, height, width) in the dtype of `images`.
    """
    count = len(images)
    rows, columns = (
        _places(length, side, config.shift, count, generator)
        for length, side in zip(images.shape[2:], size, strict=True)
    )
    if config.flip:
        mirrored = torch.randint(2, (count, 1), generator=generator).bool()
        columns = torch.where(mirrored, columns.flip(1), columns)
    each = torch.arange(count)[:, None, None]
    return images[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _places(length: int, side: int, shift: int, count: int, generator: torch.Generator) -> Tensor:
    """(count, side) of the pixels that each crop shows along an axis of `length`."""
    middle = round((length - side) / 2)
    first = middle + torch.randint(-shift, shift + 1, (count, 1), generator=generator)
    return (first + torch.arange(side)).clamp(0, length - 1)
