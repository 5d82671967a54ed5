"""An archive of pictures as it came: names, sizes and headers checked, nothing decoded."""

from itertools import chain
from pathlib import Path
from typing import Any

from search.data.archive import open_archive
from search.data.declaration import IMAGES, TRAIN, Declaration
from search.data.layout import Part, read_layout
from search.data.picture_shapes import common_shape
from service.array_intake import MAX_CLASSES, check_count
from service.problems import ProblemError


def describe_pictures(path: Path, max_bytes: int, declaration: Declaration) -> dict[str, Any]:
    """Check an archive; what it holds, as `array_intake.describe_arrays` says it.

    Args:
        path: a zip or tar archive, see `search.data.layout`.
        max_bytes: what the pictures may hold together.
        declaration: the transforms, after which all have one shape.

    Raises:
        ProblemError: invalid-dataset or dataset-too-small.
        ArchiveError, DataError: with the name of the file that is refused.
    """
    if declaration.inputs != (IMAGES,):
        raise ProblemError(
            "invalid-dataset",
            f"inputs {list(declaration.inputs)} came; an archive of pictures holds {IMAGES} alone",
        )
    with open_archive(path, max_bytes) as archive:
        layout = read_layout(archive)
        parts = {IMAGES: layout.held_out}
        if layout.train is not None:
            parts[TRAIN + IMAGES] = layout.train
        for name, part in parts.items():
            check_count(name, len(part.pictures))
        pictures = chain.from_iterable(part.pictures for part in parts.values())
        shape = common_shape(archive, pictures, declaration.transforms)
    return {
        "inputs": [{"name": IMAGES, "shape": list(shape), "dtype": "uint8"}],
        "counts": {name: len(part.pictures) for name, part in parts.items()},
        "classes": _classes(layout.held_out),
        "has_labels": layout.held_out.labels is not None,
        "has_train": layout.train is not None,
    }


def _classes(part: Part) -> int | None:
    """The number of classes that occur."""
    if part.labels is None:
        return None
    classes, highest = len(set(part.labels)), max(part.labels)
    if classes < 2 or highest >= MAX_CLASSES:
        raise ProblemError(
            "invalid-dataset",
            f"{classes} classes up to number {highest} came, at least two were wanted, "
            f"numbered up to {MAX_CLASSES - 1}",
        )
    return classes
