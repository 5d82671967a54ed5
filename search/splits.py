"""Which images serve for what: calibration, search, confirmation.

A split is fixed by the digest of each sample's index, so that it is the same in every process and
has nothing to do with the order in which the classes were stored.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from search.data.arrays import Arrays
from search.errors import DataError

CALIBRATION_SAMPLES = 512
CALIBRATION_SHARE = 0.2  # of the images, where no training images are given
SEARCH_SHARE = 0.4  # of what calibration leaves
SEED = 0


@dataclass(frozen=True, slots=True)
class Splits:
    """Indices into the arrays, (n,) int64 each, in the order of their digests.

    No sample is in two of calibration, search and confirmation.
    """

    calibration: Tensor
    search: Tensor
    confirmation: Tensor
    recovery: Tensor
    """What candidates may be trained on: all training images, else those of the calibration."""
    calibration_is_training: bool
    """Whether `calibration` and `recovery` point into the training images instead of the images."""


def make_splits(arrays: Arrays, *, needs_labels: bool, seed: int = SEED) -> Splits:
    """Split the samples 40 % for the search, 60 % for the confirmation.

    At most 512 calibration images come from the training images; where there are none, from a
    fifth of the images first.

    Raises:
        DataError: labels are needed and missing, a split would be empty, or one of them holds a
            single class, on which no network can fail.
    """
    if needs_labels and arrays.labels is None:
        raise DataError(
            "samples without labels came; this metric needs labels: "
            "add them, or promise the metric agreement or mse, which need none"
        )
    order = _by_digest(len(arrays), seed)
    if arrays.train_inputs is not None:
        recovery = _by_digest(arrays.train_count, seed)
        calibration = recovery[:CALIBRATION_SAMPLES]
    else:
        count = min(CALIBRATION_SAMPLES, round(CALIBRATION_SHARE * len(order)))
        recovery = calibration = order[:count]
        order = order[count:]
    count = round(SEARCH_SHARE * len(order))
    splits = Splits(
        calibration=calibration,
        search=order[:count],
        confirmation=order[count:],
        recovery=recovery,
        calibration_is_training=arrays.train_inputs is not None,
    )
    _check(splits, arrays, needs_labels)
    return splits


def _by_digest(count: int, seed: int) -> Tensor:
    digests = [hashlib.sha256(f"{seed}:{index}".encode()).digest() for index in range(count)]
    return torch.tensor(sorted(range(count), key=digests.__getitem__))


def _check(splits: Splits, arrays: Arrays, needs_labels: bool) -> None:
    parts = {
        "calibration": splits.calibration,
        "search": splits.search,
        "confirmation": splits.confirmation,
    }
    for name, indices in parts.items():
        if len(indices) == 0:
            raise DataError(f"{len(arrays)} samples came: too few, the {name} split would be empty")
    if not needs_labels or arrays.labels is None:
        return
    for name in ("search", "confirmation"):
        classes = torch.unique(arrays.labels[parts[name]])
        if len(classes) == 1:
            raise DataError(
                f"all {len(parts[name])} labels of the {name} split are class {int(classes[0])}: "
                "two classes or more were wanted, else nothing can be lost"
            )
