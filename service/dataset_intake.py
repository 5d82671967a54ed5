"""The arrays of a dataset as they came: checked without torch, described for the job."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from service import npz, safetensors_file
from service.problems import ProblemError

KEYS: Final = ("images", "labels", "train_images", "train_labels")
MIN_SAMPLES: Final = 10
MAX_CLASSES: Final = 100_000
IMAGE_TYPES: Final = ("|u1", "<f2", "<f4", "<f8")
LABEL_TYPES: Final = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
PICTURE_CHANNELS: Final = (1, 3, 4)

# What the built-in sets hold, in the form of `describe`. The job checks the files themselves.
BUILTINS: Final[dict[str, dict[str, Any]]] = {
    name: {
        "form": "builtin",
        "counts": {"images": images, "train_images": train_images},
        "shape": shape,
        "dtype": "uint8",
        "classes": 10,
        "mean": None,
        "std": None,
        "has_labels": True,
        "has_train": True,
    }
    for name, images, train_images, shape in (
        ("digits", 897, 900, [1, 32, 32]),
        ("mnist", 10_000, 60_000, [1, 28, 28]),
        ("cifar10", 10_000, 50_000, [3, 32, 32]),
    )
}


class StoredArray(Protocol):
    """An array of a file, read in pieces."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def shape(self) -> tuple[int, ...]: ...

    def chunks(self) -> Iterator[np.ndarray[Any, Any]]: ...


def describe(
    path: Path, max_bytes: int, mean: list[float] | None, std: list[float] | None
) -> dict[str, Any]:
    """Check a file of arrays; what it holds.

    Args:
        path: an .npz or a safetensors file, told apart by its first bytes, with `images`
            (N, C, H, W) or (N, H, W), uint8 or finite floats; perhaps `labels` (N,), integers;
            perhaps `train_images` and `train_labels` of the same kind.
        max_bytes: what the arrays may inflate to.
        mean: what is subtracted, for each channel; of uint8 images after division by 255.
        std: what is divided by, for each channel.

    Returns:
        form, counts, shape [C, H, W], dtype, classes (None without labels), mean, std,
        has_labels, has_train.

    Raises:
        ProblemError: unsafe-file, malformed-file, file-too-large, not-finite, invalid-dataset or
            dataset-too-small.
    """
    form, arrays = _open(path, max_bytes)
    _check_keys(set(arrays))
    images = arrays["images"]
    shape = _check_images(images)
    classes = _check_labels(arrays["labels"], images) if "labels" in arrays else None
    if "train_images" in arrays:
        train_images = arrays["train_images"]
        if (_check_images(train_images), train_images.dtype) != (shape, images.dtype):
            raise _refusal(train_images, f"{images.dtype} of (M, {_listed(shape)}) like images")
        _check_labels(arrays["train_labels"], train_images)
    _check_scaling(mean, std, shape[0])
    counts = {name: arrays[name].shape[0] for name in arrays if name.endswith("images")}
    return {
        "form": form,
        "counts": counts,
        "shape": list(shape),
        "dtype": images.dtype.name,
        "classes": classes,
        "mean": mean,
        "std": std,
        "has_labels": "labels" in arrays,
        "has_train": "train_images" in arrays,
    }


def _open(path: Path, max_bytes: int) -> tuple[str, Mapping[str, StoredArray]]:
    with path.open("rb") as file:
        start = file.read(9)
    if start.startswith(b"PK"):
        return "npz", npz.read_arrays(path, max_bytes)
    if not safetensors_file.looks_like_safetensors(start):
        raise safetensors_file.refusal_of(start, "an .npz or a safetensors file")
    tensors = safetensors_file.read_header(path)
    for tensor in tensors.values():
        if tensor.kind == "BF16":
            raise ProblemError(
                "invalid-dataset", f"{tensor.name}: BF16 came, U8, F16, F32 or F64 was wanted"
            )
    return "safetensors", tensors


def _check_keys(names: set[str]) -> None:
    unpaired = ("train_images" in names) != ("train_labels" in names)
    if "images" not in names or not names <= set(KEYS) or unpaired:
        raise ProblemError(
            "invalid-dataset",
            f"arrays {sorted(names)} came; images were wanted, perhaps with labels, perhaps with "
            "both train_images and train_labels, and nothing else",
        )


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
    if count < MIN_SAMPLES:
        raise ProblemError(
            "dataset-too-small",
            f"{images.name}: {count} samples came, at least {MIN_SAMPLES} were wanted: "
            "some choose the ranks, others confirm the promise",
        )
    # Every chunk is read, of integers too: an archive's checksum is compared at its end.
    for chunk in images.chunks():
        if images.dtype.kind == "f" and not np.isfinite(chunk).all():
            raise ProblemError(
                "not-finite", f"{images.name} holds NaN or infinity; finite values were wanted"
            )
    return shape


def _check_labels(labels: StoredArray, images: StoredArray) -> int:
    """Check type, shape and values; the number of classes that occur."""
    if labels.dtype.str[1:] not in LABEL_TYPES or labels.dtype.str[0] == ">":
        raise _refusal(labels, "little-endian integers, the number of a class each")
    if labels.shape != images.shape[:1]:
        raise _refusal(labels, f"shape ({images.shape[0]},), one for each of {images.name}")
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


def _check_scaling(mean: list[float] | None, std: list[float] | None, channels: int) -> None:
    if mean is None and std is None:
        return
    if mean is None or std is None or len(mean) != channels or len(std) != channels:
        raise ProblemError(
            "invalid-dataset",
            f"mean {mean} and std {std} came, {channels} numbers for each were wanted: "
            "one a channel, or neither",
        )
    if not all(map(math.isfinite, mean + std)) or min(std) <= 0:
        raise ProblemError(
            "invalid-dataset", f"mean {mean} and std {std} came, finite means and std > 0 wanted"
        )


def _refusal(array: StoredArray, wanted: str) -> ProblemError:
    return ProblemError(
        "invalid-dataset",
        f"{array.name}: {array.dtype} of ({_listed(array.shape)}) came, {wanted} was wanted",
    )


def _listed(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
