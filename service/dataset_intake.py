"""A file of data as it came: checked without torch, described for the job."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from search.data.declaration import IMAGES, Declaration
from search.data.forms import form_of
from search.data.transforms import as_document, shape_after
from service import npz, safetensors_file
from service.array_intake import StoredArray, describe_arrays
from service.npy import read_array
from service.picture_intake import describe_pictures
from service.problems import ProblemError
from service.refusals import refusals

# What the built-in sets hold: held-out images, training images, shape. The job checks the files.
BUILTINS: Final = {
    "digits": (897, 900, (1, 32, 32)),
    "mnist": (10_000, 60_000, (1, 28, 28)),
    "cifar10": (10_000, 50_000, (3, 32, 32)),
}


def describe(path: Path, max_bytes: int, declaration: Declaration) -> dict[str, Any]:
    """Check a file of data; what it holds.

    Args:
        path: an .npz, .npy or safetensors file, or a zip or tar archive of pictures, told apart
            by its first bytes.
        max_bytes: what it may inflate to.
        declaration: what its arrays are.

    Returns:
        form, inputs with shapes after the transforms, counts, classes (None without labels),
        transforms, mean, std, has_labels, has_train.

    Raises:
        ProblemError: unsafe-file, malformed-file, file-too-large, not-finite, invalid-dataset or
            dataset-too-small.
    """
    with refusals():
        form = form_of(path)
        if form in ("zip", "tar"):
            found = describe_pictures(path, max_bytes, declaration)
        else:
            found = describe_arrays(_arrays(path, form, max_bytes, declaration), declaration)
    return _described(form, found, declaration)


def describe_builtin(name: str, declaration: Declaration) -> dict[str, Any]:
    """What a built-in set holds, in the form of `describe`.

    Raises:
        ProblemError: invalid-dataset.
    """
    images, train_images, shape = BUILTINS[name]
    with refusals():
        after = shape_after(declaration.transforms, shape)
    found = {
        "inputs": [{"name": IMAGES, "shape": list(after), "dtype": "uint8"}],
        "counts": {"images": images, "train_images": train_images},
        "classes": 10,
        "has_labels": True,
        "has_train": True,
    }
    return _described("builtin", found, declaration)


def _described(
    form: str | None, found: Mapping[str, Any], declaration: Declaration
) -> dict[str, Any]:
    """Whole: what was found and what was declared."""
    mean, std = declaration.mean, declaration.std
    for entry in found["inputs"]:
        if entry["name"] == IMAGES:
            _check_scaling(mean, std, entry["shape"][0])
    return {
        "form": form,
        **found,
        "transforms": as_document(declaration.transforms),
        "mean": mean and list(mean),
        "std": std and list(std),
    }


def _arrays(
    path: Path, form: str | None, max_bytes: int, declaration: Declaration
) -> Mapping[str, StoredArray]:
    match form:
        case "npz":
            return npz.read_arrays(path, max_bytes)
        case "npy":
            name, *others = declaration.inputs
            if others:
                raise ProblemError(
                    "invalid-dataset",
                    f"inputs {list(declaration.inputs)} came; an .npy file holds one array",
                )
            return {name: read_array(path, name)}
        case "safetensors":
            return _tensors(path)
    with path.open("rb") as file:
        start = file.read(9)
    raise safetensors_file.refusal_of(
        start, "an .npz, .npy or safetensors file, or a zip or tar archive of pictures"
    )


def _tensors(path: Path) -> Mapping[str, StoredArray]:
    tensors = safetensors_file.read_header(path)
    for tensor in tensors.values():
        if tensor.kind == "BF16":
            raise ProblemError(
                "invalid-dataset", f"{tensor.name}: BF16 came, U8, F16, F32 or F64 was wanted"
            )
    return tensors


def _check_scaling(
    mean: tuple[float, ...] | None, std: tuple[float, ...] | None, channels: int
) -> None:
    if mean is None and std is None:
        return
    if mean is None or std is None or len(mean) != channels or len(std) != channels:
        raise ProblemError(
            "invalid-dataset",
            f"mean {mean} and std {std} came, {channels} numbers for each were wanted: "
            "one a channel, or neither",
        )
    if min(std) <= 0:
        raise ProblemError("invalid-dataset", f"std {std} came, positive numbers were wanted")
