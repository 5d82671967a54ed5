"""Clips of a digit that moves through a frame, rendered from single images."""

import torch
from torch import Tensor

SIDE = 64
FRAMES = 20
SPEED = 2  # pixels from frame to frame, along each axis that the digit moves on
DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
"""(down, right) of each class: eight, a half right angle apart."""


def clips(images: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """One clip of each image, in a direction and from a place drawn by chance.

    What leaves the frame on one side comes in on the other, so that no frame tells the direction.

    Args:
        images: (N, H, W), any dtype; no larger than the frame.
        seed: of the draws.

    Returns:
        Clips (N, FRAMES, SIDE, SIDE) in the dtype of the images, and the directions (N,).
    """
    generator = torch.Generator().manual_seed(seed)
    count, height, width = images.shape
    directions = torch.randint(len(DIRECTIONS), (count,), generator=generator)
    starts = torch.randint(SIDE, (count, 2), generator=generator)
    steps = torch.tensor(DIRECTIONS)[directions] * SPEED
    frame = images.new_zeros(count, SIDE, SIDE)
    frame[:, :height, :width] = images
    at = torch.arange(FRAMES)[None, :, None] * steps[:, None] + starts[:, None]  # (N, FRAMES, 2)
    down, right = ((torch.arange(SIDE) - at[..., axis, None]) % SIDE for axis in (0, 1))
    each = torch.arange(count)[:, None, None, None]
    return frame[each, down[..., :, None], right[..., None, :]], directions
