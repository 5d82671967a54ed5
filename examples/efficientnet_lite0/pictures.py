"""Natural pictures without labels, as an archive that a job may be given.

By default those that can be had offline: 1,900 small ones of CIFAR-10's test set (JPEG, 32 x 32,
each class alike), and 100 squares out of scikit-learn's two photographs. Enlarged to 224 x 224
they are blurred as no photograph of ImageNet is; the network decides on them less surely.
"""

import io
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from search.data.declaration import Declaration
from search.data.transforms import CenterCrop, Resize

SIDE: Final = 224
HALF: Final = (0.5, 0.5, 0.5)
DECLARATION: Final = Declaration(
    transforms=(Resize(SIDE), CenterCrop((SIDE, SIDE))), mean=HALF, std=HALF
)
EACH_CLASS: Final = 190
SQUARES: Final = 50  # of each photograph
SIDES: Final = (160, 400)  # least and most of a square
SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp")


def archive_of(folder: Path, target: Path) -> int:
    """Pack the pictures of a folder, and of those below it; returns how many."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return _pack(((path.suffix.lower(), path.read_bytes()) for path in found), target)


def offline_archive(data_root: Path, target: Path) -> int:
    """Pack the default pictures; returns how many.

    Args:
        data_root: has CIFAR-10 below `cifar10`, unpacked or as `cifar10.tar.xz`.
        target: the zip archive to write.

    Raises:
        FileNotFoundError: no CIFAR-10 is there.
    """
    small = ((".jpg", content) for content in _cifar(data_root / "cifar10"))
    return _pack(chain(small, ((".png", content) for content in _squares())), target)


def _pack(pictures: Iterable[tuple[str, bytes]], target: Path) -> int:
    """Under numbers, so that no name of a folder becomes a class."""
    count = 0
    with zipfile.ZipFile(target, "w") as archive:
        for count, (suffix, content) in enumerate(pictures, 1):
            archive.writestr(f"{count:05}{suffix}", content)
    return count


def _cifar(root: Path) -> Iterator[bytes]:
    if (root / "test").is_dir():
        for folder in sorted((root / "test").iterdir()):
            yield from (path.read_bytes() for path in sorted(folder.glob("*.jpg"))[:EACH_CLASS])
        return
    taken: dict[str, int] = {}
    with tarfile.open(root / "cifar10.tar.xz", "r|xz") as archive:
        for member in archive:
            part, _, name = member.name.rpartition("/")
            if part.startswith("test/") and name and taken.get(part, 0) < EACH_CLASS:
                content = archive.extractfile(member)
                assert content is not None
                taken[part] = taken.get(part, 0) + 1
                yield content.read()


def _squares() -> Iterator[bytes]:
    """Squares of two photographs, 427 x 640, at random places and of random sides; seeded."""
    from sklearn.datasets import load_sample_images  # noqa: PLC0415, slow to import

    draw = np.random.default_rng(0)
    for picture in load_sample_images().images:
        height, width, _ = picture.shape
        for _ in range(SQUARES):
            side = int(draw.integers(*SIDES))
            top, left = draw.integers(height - side + 1), draw.integers(width - side + 1)
            encoded = io.BytesIO()
            Image.fromarray(picture[top : top + side, left : left + side]).save(encoded, "PNG")
            yield encoded.getvalue()
