"""Images (N, C, H, W) as a network learns from them: each a little different each time."""

import torch
from torch import Tensor
from torch.nn import functional as F


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
    """A square of `side` pixels from anywhere in each image, half of them mirrored."""
    count, _, *size = images.shape
    top, left = (
        torch.randint(length - side + 1, (count,), generator=generator)[:, None] for length in size
    )
    columns = left + torch.arange(side)
    mirrored = torch.randint(2, (count, 1), generator=generator).bool()
    columns = torch.where(mirrored, columns.flip(1), columns)
    rows = top + torch.arange(side)
    each = torch.arange(count)[:, None, None]
    return images[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def center_crop(images: Tensor, side: int) -> Tensor:
    """The square of `side` pixels in the middle of each image."""
    top, left = ((length - side) // 2 for length in images.shape[2:])
    return images[:, :, top : top + side, left : left + side]
