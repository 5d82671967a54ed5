"""Data as a job brings them: arrays in one file, or an archive of pictures."""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Final
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from compress.errors import CompressError
from search.data.archive import open_archive
from search.data.arrays import Arrays, Stored
from search.data.declaration import IMAGES, LABELS, TRAIN, Declaration
from search.data.decoder import Decoder
from search.data.forms import form_of
from search.data.layout import Part, read_layout
from search.data.picture_shapes import common_shape
from search.data.pictures import Pictures
from search.data.transformed import Transformed
from search.errors import DataError

MAX_ARCHIVE_BYTES: Final = 1 << 40  # the service has held the file to its own limit


def read_arrays(path: Path, declaration: Declaration | None = None) -> Arrays:
    """Read the data of a file; its first bytes tell the formats apart.

    An npz or safetensors file holds an array for each input, perhaps `labels`, and perhaps the
    same of training samples, `train_images` and `train_labels` say. An npy file is the only
    input. A zip or tar archive holds pictures, see `search.data.layout`.

    Args:
        path: the file.
        declaration: what its arrays are; by default images, taken as they are.

    Raises:
        DataError: the file is none of these, an array is missing or unknown, or does not fit.
    """
    declaration = declaration or Declaration()
    try:
        match form_of(path):
            case "zip" | "tar":
                return _read_pictures(path, declaration)
            case "npz":
                tensors = _read_npz(path)
            case "npy":
                array = np.load(path, "c", allow_pickle=False)
                tensors = {declaration.inputs[0]: torch.from_numpy(array)}
            case "safetensors":
                tensors = _read_safetensors(path)
            case None:
                raise ValueError("an npz, npy, safetensors, zip or tar file was wanted")
    except DataError:
        raise
    except (ValueError, OSError, EOFError, BadZipFile, SafetensorError, CompressError) as error:
        raise DataError(f"the data cannot be read: {error}") from error
    return arranged(tensors, declaration)


def arranged(tensors: Mapping[str, Tensor], declaration: Declaration) -> Arrays:
    """Tensors by what they are for.

    Raises:
        DataError: one is missing or unknown, or does not fit.
    """
    names = declaration.inputs
    if unknown := sorted(set(tensors) - set(declaration.arrays)):
        raise DataError(f"arrays {unknown} came, some of {declaration.arrays} were wanted")
    if missing := [name for name in names if name not in tensors]:
        raise DataError(f"arrays {sorted(tensors)} came, {missing[0]!r} was wanted")
    train = [name for name in names if TRAIN + name in tensors]
    return Arrays(
        inputs={name: _input(name, tensors[name], declaration) for name in names},
        labels=_labels(tensors.get(LABELS)),
        train_inputs={name: _input(name, tensors[TRAIN + name], declaration) for name in train}
        or None,
        train_labels=_labels(tensors.get(TRAIN + LABELS)),
        mean=declaration.mean,
        std=declaration.std,
    )


def _read_pictures(path: Path, declaration: Declaration) -> Arrays:
    if declaration.inputs != (IMAGES,):
        raise DataError(f"inputs {list(declaration.inputs)} came; an archive holds images alone")
    transforms = declaration.transforms
    archive = open_archive(path, MAX_ARCHIVE_BYTES)
    layout = read_layout(archive)
    parts = [layout.held_out, layout.train] if layout.train else [layout.held_out]
    shape = common_shape(archive, chain.from_iterable(p.pictures for p in parts), transforms)
    decoder = Decoder()
    images, *train = (
        Pictures(archive, part.pictures, transforms, shape, decoder) for part in parts
    )
    return Arrays.of_images(
        images,
        _numbers(layout.held_out),
        train_images=train[0] if train else None,
        train_labels=_numbers(layout.train) if layout.train else None,
        mean=declaration.mean,
        std=declaration.std,
    )


def _numbers(part: Part) -> Tensor | None:
    return None if part.labels is None else torch.tensor(part.labels)


def _read_npz(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors where they lie in the file: what is not asked for takes no memory."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping


def _input(name: str, values: Tensor, declaration: Declaration) -> Stored:
    """Images may come without a channel; real values in any precision, integers in any width."""
    values = values.float() if values.is_floating_point() else values
    if name != IMAGES:
        is_integer = not values.is_floating_point() and values.dtype != torch.bool
        return values.long() if is_integer else values
    values = values[:, None] if values.ndim == 3 else values
    transforms = declaration.transforms
    return Transformed(values, transforms) if transforms and values.ndim == 4 else values


def _labels(labels: Tensor | None) -> Tensor | None:
    """Integers of any width as int64; floats are left for the check to refuse."""
    if labels is None or labels.is_floating_point() or labels.dtype == torch.bool:
        return labels
    return labels.long()
