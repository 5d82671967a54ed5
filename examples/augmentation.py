"""Images (N, C, H, W) as a network learns from them: each a little different each time."""

import torch
from torch import Tensor
from torch.nn import functional as F

from search.config import Augmentation
from search.data.augmenter import varied


def jitter(images: Tensor, generator: torch.Generator, shift: float, turn: float) -> Tensor:
    """Each image of (N, C, H, W) shifted by up to `shift` of its size, turned by `turn` radians."""
    count = len(images)
    angle = (torch.rand(count, generator=generator) * 2 - 1) * turn
    scale = 1 + (torch.rand(count, generator=generator) * 2 - 1) * 0.1
    moves = (torch.rand(count, 2, 1, generator=generator) * 2 - 1) * shift * 2
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    turned = torch.stack([cos, -sin, sin, cos], 1).view(count, 2, 2)
    grid = F.affine_grid(torch.cat([turned, moves], 2), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def crop_and_flip(images: Tensor, generator: torch.Generator, side: int) -> Tensor:
    """A square of `side` pixels from anywhere in each image of (N, C, H, H), half mirrored."""
    shift = (images.shape[-1] - side) // 2
    return varied(images, (side, side), Augmentation(flip=True, shift=shift), generator)
