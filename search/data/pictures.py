"""Encoded pictures of an archive, decoded when they are first asked for."""

import math
import os
import tempfile
import weakref
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from compress.errors import ArchiveError
from search.data.archive import Archive, Member
from search.data.decoder import Decoder
from search.data.picture_shapes import COLOURS, header_of
from search.data.transformed import transformed
from search.data.transforms import Shape, Transform
from search.errors import DataError


class Pictures:
    """Pictures of one shape once they are transformed, (N, C, H, W) uint8.

    Each is decoded once and kept, transformed, in a file without a name: memory holds a batch,
    the disk what was asked for.
    """

    dtype = torch.uint8

    def __init__(
        self,
        archive: Archive,
        pictures: Sequence[Member],
        transforms: Sequence[Transform],
        shape: Shape,
        decoder: Decoder,
    ) -> None:
        """Decode nothing yet.

        Args:
            archive: stays open as long as this lives.
            pictures: its members, of which each becomes one sample.
            transforms: what is done to each.
            shape: (C, H, W) of all of them afterwards, of `picture_shapes.common_shape`.
            decoder: whose process decodes them.
        """
        self.shape = (len(pictures), *shape)
        self._archive = archive
        self._pictures = pictures
        self._transforms = transforms
        self._decoder = decoder
        self._size = math.prod(shape)
        kept = tempfile.TemporaryFile(prefix="pictures-")  # noqa: SIM115, lives as we do
        weakref.finalize(self, kept.close)
        self._kept = kept.fileno()
        self._is_kept = np.zeros(len(pictures), dtype=bool)

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: Tensor) -> Tensor:
        """(n, C, H, W) of the pictures `index` (n,).

        Raises:
            DataError: a picture cannot be decoded; the message names it.
            OSError: there is no space.
        """
        found = torch.empty(len(index), *self.shape[1:], dtype=torch.uint8)
        for values, number in zip(found, index.tolist(), strict=True):
            values.copy_(self._one(number))
        return found

    def _one(self, number: int) -> Tensor:
        """One picture, (C, H, W)."""
        at = number * self._size
        if not self._is_kept[number]:
            decoded = self._decoded(self._pictures[number])
            picture = transformed(decoded[None], self._transforms)[0].contiguous()
            rest = memoryview(picture.numpy().tobytes())
            while rest:
                written = os.pwrite(self._kept, rest, at)
                at, rest = at + written, rest[written:]
            self._is_kept[number] = True
            return picture
        content = bytearray(self._size)
        os.preadv(self._kept, [content], at)
        return torch.frombuffer(content, dtype=torch.uint8).view(self.shape[1:])

    def _decoded(self, picture: Member) -> Tensor:
        """One picture as it is stored, (3, H, W)."""
        header = header_of(self._archive, picture)
        try:
            content = self._archive.read(picture)
        except ArchiveError as error:
            raise DataError(f"{picture.name!r} cannot be decoded: {error}") from error
        pixels = self._decoder.decode(picture.name, header, content)
        flat = torch.frombuffer(pixels, dtype=torch.uint8)
        return flat.view(header.height, header.width, COLOURS).permute(2, 0, 1)
