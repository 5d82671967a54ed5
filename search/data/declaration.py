"""What a user says beside a file of data: which arrays the network takes, and how. No torch."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from search.data.transforms import Transform, read_transforms
from search.errors import DataError

IMAGES: Final = "images"
LABELS: Final = "labels"
TRAIN: Final = "train_"
MAX_INPUTS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """How data are to be read.

    Raises:
        DataError: names that are none or come twice, or transforms, mean or std without images.
    """

    inputs: tuple[str, ...] = (IMAGES,)
    """Names of the arrays that the network takes, in the order of its arguments."""
    transforms: tuple[Transform, ...] = ()
    """Of images, before they are normalised."""
    mean: tuple[float, ...] | None = None
    """Subtracted from images, a value a channel; of uint8 after division by 255."""
    std: tuple[float, ...] | None = None
    """What images are divided by, a value a channel."""

    def __post_init__(self) -> None:
        names = self.inputs
        if not 1 <= len(names) <= MAX_INPUTS or len(set(names)) < len(names):
            raise DataError(f"inputs {list(names)} came, 1 to {MAX_INPUTS} names were wanted")
        for name in names:
            if not name.isidentifier() or name == LABELS or name.startswith(TRAIN):
                raise DataError(
                    f"an input named {name!r} came; wanted was a word that is not {LABELS} and "
                    f"does not begin with {TRAIN}"
                )
        if IMAGES not in names and (self.transforms or self.mean or self.std):
            raise DataError(
                f"transforms, mean and std are for {IMAGES}; the inputs are {list(names)}"
            )
        if not all(map(math.isfinite, [*(self.mean or ()), *(self.std or ())])):
            raise DataError(f"mean {self.mean} and std {self.std} came, finite numbers were wanted")

    @classmethod
    def read(cls, description: Mapping[str, Any]) -> Self:
        """What the description of a dataset declares, among all that it says.

        Raises:
            DataError: it cannot be meant.
        """
        mean, std = description.get("mean"), description.get("std")
        return cls(
            inputs=tuple(e["name"] for e in description.get("inputs", [{"name": IMAGES}])),
            transforms=read_transforms(description.get("transforms", [])),
            mean=None if mean is None else tuple(map(float, mean)),
            std=None if std is None else tuple(map(float, std)),
        )

    @classmethod
    def parsed(cls, *, inputs: str, transforms: str, mean: str | None, std: str | None) -> Self:
        """What texts declare, as they stand on a command line.

        Args:
            inputs: names with commas between.
            transforms: JSON, see `search.data.transforms`.
            mean: numbers with commas between.
            std: likewise.

        Raises:
            DataError: a text cannot be read, or cannot be meant.
        """
        try:
            document = json.loads(transforms)
            numbers = [None if t is None else tuple(map(float, t.split(","))) for t in (mean, std)]
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"transforms {transforms}, mean {mean} and std {std} came; JSON was wanted, and "
                f"numbers with commas between: {error}"
            ) from error
        return cls(
            inputs=tuple(inputs.split(",")),
            transforms=read_transforms(document),
            mean=numbers[0],
            std=numbers[1],
        )

    @property
    def arrays(self) -> list[str]:
        """Every array that a file may hold."""
        own = [*self.inputs, LABELS]
        return [*own, *(TRAIN + name for name in own)]
