"""Arrays as a dataset: their names, types, shapes and values checked without torch."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

import numpy as np

from search.data.declaration import IMAGES, LABELS, TRAIN, Declaration
from search.data.transforms import shape_after
from service.problems import ProblemError

MIN_SAMPLES: Final = 10
MAX_CLASSES: Final = 100_000
IMAGE_TYPES: Final = ("|u1", "<f2", "<f4", "<f8")
INTEGERS: Final = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
# Of inputs that are no images: real values, numbers of tokens, masks.
INPUT_TYPES: Final = ("<f2", "<f4", "<f8", "|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4")
PICTURE_CHANNELS: Final = (1, 3, 4)


class StoredArray(Protocol):
    """An array of a file, read in pieces."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def shape(self) -> tuple[int, ...]: ...

    def chunks(self) -> Iterator[np.ndarray[Any, Any]]: ...


def describe_arrays(arrays: Mapping[str, StoredArray], declaration: Declaration) -> dict[str, Any]:
    """Check the arrays of a file; what they hold.

    Args:
        arrays: by name: each input (N, ...), of which `images` are (N, C, H, W) or (N, H, W),
            uint8 or finite floats, and others finite floats, integers or booleans; perhaps
            `labels` (N,), integers; perhaps `train_images` and the like with `train_labels`.
        declaration: the names of the inputs, and the transforms of images.

    Returns:
        inputs with shapes and types, counts, classes (None without labels), has_labels, has_train.

    Raises:
        ProblemError: malformed-file, not-finite, invalid-dataset or dataset-too-small.
        DataError: the images cannot be transformed so.
    """
    names = declaration.inputs
    has_train = _check_names(set(arrays), declaration)
    shapes = {name: _check_input(arrays[name]) for name in names}
    count = len_of(arrays[names[0]])
    for name in names:
        if len_of(arrays[name]) != count:
            raise _refusal(arrays[name], f"{count} samples as of {names[0]}")
    classes = _check_labels(arrays[LABELS], count) if LABELS in arrays else None
    if has_train:
        _check_train(arrays, shapes, names)
    return {
        "inputs": [
            {
                "name": name,
                "shape": list(_transformed(name, shapes[name], declaration)),
                "dtype": arrays[name].dtype.name,
            }
            for name in names
        ],
        "counts": {
            name: len_of(arrays[name])
            for name in (*names, *(TRAIN + n for n in names))
            if name in arrays
        },
        "classes": classes,
        "has_labels": LABELS in arrays,
        "has_train": has_train,
    }


def len_of(array: StoredArray) -> int:
    """Samples in an array."""
    return array.shape[0] if array.shape else 0


def check_count(name: str, count: int) -> None:
    """Refuse too few samples.

    Raises:
        ProblemError: dataset-too-small.
    """
    if count < MIN_SAMPLES:
        raise ProblemError(
            "dataset-too-small",
            f"{name}: {count} samples came, at least {MIN_SAMPLES} were wanted: "
            "some choose the ranks, others confirm the promise",
        )


def _check_names(names: set[str], declaration: Declaration) -> bool:
    """Check which arrays there are; whether some are of training samples."""
    inputs = set(declaration.inputs)
    train = {name for name in names if name.startswith(TRAIN)}
    wanted_train = {TRAIN + name for name in (*declaration.inputs, LABELS)}
    if not inputs <= names <= set(declaration.arrays) or train not in (set(), wanted_train):
        raise ProblemError(
            "invalid-dataset",
            f"arrays {sorted(names)} came; {', '.join(declaration.inputs)} were wanted, perhaps "
            f"with {LABELS}, perhaps with all of {', '.join(sorted(wanted_train))}, and nothing "
            "else; inputs of other names are to be declared (inputs=NAME,NAME)",
        )
    return bool(train)


def _check_train(
    arrays: Mapping[str, StoredArray], shapes: Mapping[str, tuple[int, ...]], names: tuple[str, ...]
) -> None:
    count = len_of(arrays[TRAIN + names[0]])
    for name in names:
        train, dtype, shape = arrays[TRAIN + name], arrays[name].dtype, shapes[name]
        alike = (_check_input(train), train.dtype, len_of(train)) == (shape, dtype, count)
        if not alike:
            raise _refusal(train, f"{dtype} of ({count}, {_listed(shape)}) like {name}")
    _check_labels(arrays[TRAIN + LABELS], count)


def _check_input(array: StoredArray) -> tuple[int, ...]:
    """Check type, shape and values; the shape of one sample."""
    if array.name.removeprefix(TRAIN) == IMAGES:
        return _check_images(array)
    if array.dtype.str not in INPUT_TYPES:
        raise _refusal(array, "little-endian real values, integers up to 64 bits or booleans")
    if not array.shape or 0 in array.shape:
        raise _refusal(array, "(N, ...)")
    check_count(array.name, len_of(array))
    _check_values(array)
    return array.shape[1:]


def _check_images(images: StoredArray) -> tuple[int, ...]:
    """Check type, shape and values; the shape of one image, (C, H, W)."""
    count, *rest = images.shape or (0,)
    if images.dtype.str not in IMAGE_TYPES:
        raise _refusal(images, "uint8, or little-endian float16, float32 or float64")
    if len(rest) not in (2, 3) or 0 in images.shape:
        raise _refusal(images, "(N, C, H, W) or (N, H, W)")
    shape = (1, *rest) if len(rest) == 2 else tuple(rest)
    if shape[2] in PICTURE_CHANNELS and shape[0] not in PICTURE_CHANNELS:
        raise _refusal(
            images,
            "(N, C, H, W), channels before height and width: this looks like (N, H, W, C), "
            "send images.transpose(0, 3, 1, 2)",
        )
    check_count(images.name, count)
    _check_values(images)
    return shape


def _check_labels(labels: StoredArray, count: int) -> int:
    """Check type, shape and values; the number of classes that occur."""
    if labels.dtype.str[1:] not in INTEGERS or labels.dtype.str[0] == ">":
        raise _refusal(labels, "little-endian integers, the number of a class each")
    if labels.shape != (count,):
        raise _refusal(labels, f"shape ({count},), one for each sample")
    seen = np.zeros(MAX_CLASSES, dtype=bool)
    for chunk in labels.chunks():
        low, high = int(chunk.min()), int(chunk.max())
        if low < 0 or high >= MAX_CLASSES:
            raise ProblemError(
                "invalid-dataset",
                f"{labels.name} from {low} to {high} came, 0 to {MAX_CLASSES - 1} were wanted: "
                "leave unlabelled samples out",
            )
        seen[chunk] = True
    classes = int(seen.sum())
    if classes < 2:
        raise ProblemError(
            "invalid-dataset", f"{labels.name} of one class came, at least two were wanted"
        )
    return classes


def _check_values(array: StoredArray) -> None:
    """Look at every value; of integers too: an archive's checksum is compared at its end."""
    for chunk in array.chunks():
        if array.dtype.kind == "f" and not np.isfinite(chunk).all():
            raise ProblemError(
                "not-finite", f"{array.name} holds NaN or infinity; finite values were wanted"
            )


def _transformed(name: str, shape: tuple[int, ...], declaration: Declaration) -> tuple[int, ...]:
    if name != IMAGES:
        return shape
    channels, height, width = shape
    return shape_after(declaration.transforms, (channels, height, width))


def _refusal(array: StoredArray, wanted: str) -> ProblemError:
    return ProblemError(
        "invalid-dataset",
        f"{array.name}: {array.dtype} of ({_listed(array.shape)}) came, {wanted} was wanted",
    )


def _listed(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
