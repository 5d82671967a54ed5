"""Sequences to classify, all of them there without a download.

MNIST is read row by row and patch by patch; clips of moving digits frame by frame, straight into
the layer, as in Wang et al., "Kronecker CP Decomposition with Fast Multiplication for Compressing
RNNs", 2021; JapaneseVowels (Kudo et al., 1999) comes inside the package aeon.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.recurrent.clips import clips

PATCH = 7  # pixels on a side
DEVIATION = 79.0  # of the pixels of MNIST, 0 to 255
FRAME_DEVIATION = 37.0  # of those of frames, most of which are black


@dataclass(frozen=True, slots=True)
class Sequences:
    """x (N, T, I), labels (N, heads); the values are divided by their `deviation` when used."""

    x: Tensor
    labels: Tensor
    deviation: float

    def batch(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Of some of the sequences, floats and labels."""
        return self.x[chosen] / self.deviation, self.labels[chosen]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is learnt, and how long; every format is trained alike."""

    name: str
    load: Callable[[Path], tuple[Sequences, Sequences]]
    """From the folder of data: to learn from and to be tested on."""
    heads: tuple[int, ...]
    """Classes of each question that is asked of a sequence."""
    cells: tuple[str, ...]
    hidden_size: int
    share: float
    """Of the parameters of each factorised weight, that it may keep."""
    weights: tuple[str, ...]
    """That are factorised."""
    batch: int
    epochs: int
    rate: float = 5e-3


def rows(root: Path) -> tuple[Sequences, Sequences]:
    """28 steps of 28 pixels."""
    return _mnist(root, lambda images: images)


def patches(root: Path) -> tuple[Sequences, Sequences]:
    """16 steps of 7 x 7 pixels."""

    def cut(images: Tensor) -> Tensor:
        return images.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH).flatten(3).flatten(1, 2)

    return _mnist(root, cut)


def moving(root: Path) -> tuple[Sequences, Sequences]:
    """20 frames of 64 x 64 pixels; labels: the digit, and the direction it moves in."""

    def rendered(images: Tensor, labels: Tensor, seed: int) -> Sequences:
        x, directions = clips(images, seed)
        return Sequences(x.flatten(2), torch.stack([labels, directions], 1), FRAME_DEVIATION)

    train, train_labels, test, labels = _digits(root)
    return (
        rendered(train[:3000], train_labels[:3000], 0),
        rendered(test[:1000], labels[:1000], 1),
    )


def vowels(_: Path) -> tuple[Sequences, Sequences]:
    """Nine speakers by one vowel: 25 steps of 12 cepstral coefficients, standardised."""
    import aeon  # noqa: PLC0415 (an extra)
    from aeon.datasets import load_from_ts_file  # noqa: PLC0415

    folder = Path(aeon.__file__).parent / "datasets" / "data" / "JapaneseVowels"
    parts = []
    for part in ("TRAIN", "TEST"):
        x, labels = load_from_ts_file(str(folder / f"JapaneseVowels_eq_{part}.ts"))
        numbers = torch.from_numpy(labels.astype(np.int64) - 1)[:, None]
        parts.append((torch.from_numpy(x).float().transpose(1, 2), numbers))
    mean, deviation = (parts[0][0].mean((0, 1)), parts[0][0].std((0, 1)))
    train, test = (Sequences((x - mean) / deviation, labels, 1.0) for x, labels in parts)
    return train, test


def _mnist(root: Path, cut: Callable[[Tensor], Tensor]) -> tuple[Sequences, Sequences]:
    train, train_labels, test, labels = _digits(root)
    return (
        Sequences(cut(train[:5000]), train_labels[:5000, None], DEVIATION),
        Sequences(cut(test[:2000]), labels[:2000, None], DEVIATION),
    )


def _digits(root: Path) -> Iterator[Tensor]:
    """Images (N, 28, 28) uint8 and labels, to learn from and then to be tested on."""
    from torchvision.datasets import MNIST  # noqa: PLC0415, slow to import

    for part in (True, False):
        found = MNIST(str(root / "mnist"), train=part, download=False)
        yield from (found.data, found.targets)


TASKS = (
    Task(
        name="clips",
        load=moving,
        heads=(10, 8),
        cells=("LSTM",),
        hidden_size=64,
        share=1 / 240,
        weights=("weight_ih_l0",),
        batch=30,
        epochs=5,
    ),
    Task(
        name="vowels",
        load=vowels,
        heads=(9,),
        cells=("LSTM", "GRU"),
        hidden_size=64,
        share=1 / 8,
        weights=("weight_ih_l0", "weight_hh_l0"),
        batch=30,
        epochs=20,
    ),
    Task(
        name="rows",
        load=rows,
        heads=(10,),
        cells=("LSTM", "GRU"),
        hidden_size=128,
        share=1 / 16,
        weights=("weight_ih_l0", "weight_hh_l0"),
        batch=50,
        epochs=2,
    ),
    Task(
        name="patches",
        load=patches,
        heads=(10,),
        cells=("LSTM", "GRU"),
        hidden_size=128,
        share=1 / 16,
        weights=("weight_ih_l0", "weight_hh_l0"),
        batch=50,
        epochs=2,
    ),
)
