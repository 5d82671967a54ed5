"""What is done to pictures before a network sees them, as data: never code, and without torch.

    [{"channels": 1}, {"resize": 256}, {"center_crop": [224, 224]}]

Sizes follow torchvision's transforms of the same names; `search.data.transformed` applies them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from search.errors import DataError

Shape = tuple[int, int, int]
"""(C, H, W) of one picture."""

MAX_TRANSFORMS: Final = 8
MAX_SIDE: Final = 4096
MAX_PIXELS: Final = 1 << 26  # of a picture, as it comes and after each transform


@dataclass(frozen=True, slots=True)
class Channels:
    """Grey (1) or colour (3): grey is 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601)."""

    count: int

    def shape(self, before: Shape) -> Shape:
        if before[0] not in (1, 3):
            raise DataError(f"channels applies to 1 or 3 of them, {before[0]} came")
        return (self.count, *before[1:])


@dataclass(frozen=True, slots=True)
class Resize:
    """Bilinear with antialiasing, to (H, W), or a shorter side with the ratio kept."""

    size: int | tuple[int, int]

    def shape(self, before: Shape) -> Shape:
        channels, height, width = before
        if not isinstance(self.size, int):
            return (channels, *self.size)
        if height <= width:
            return (channels, self.size, self.size * width // height)
        return (channels, self.size * height // width, self.size)


@dataclass(frozen=True, slots=True)
class CenterCrop:
    """The middle (H, W) of a picture that is at least as large."""

    size: tuple[int, int]

    def shape(self, before: Shape) -> Shape:
        if any(have < want for have, want in zip(before[1:], self.size, strict=True)):
            raise DataError(
                f"center_crop {list(self.size)} of a picture of {list(before[1:])} came: "
                "resize it first, or crop less"
            )
        return (before[0], *self.size)


Transform = Channels | Resize | CenterCrop


def read_transforms(document: Any) -> tuple[Transform, ...]:
    """The transforms that a list of objects with one key each describes.

    Raises:
        DataError: it describes none; the message says which entry and what was wanted.
    """
    if not isinstance(document, list) or len(document) > MAX_TRANSFORMS:
        raise DataError(f"transforms {document!r:.200} came, a list of {MAX_TRANSFORMS} at most")
    return tuple(_read(entry) for entry in document)


def as_document(transforms: Iterable[Transform]) -> list[dict[str, Any]]:
    """The list that `read_transforms` reads."""
    document: list[dict[str, Any]] = []
    for transform in transforms:
        match transform:
            case Channels(count):
                document.append({"channels": count})
            case Resize(size):
                document.append({"resize": size if isinstance(size, int) else list(size)})
            case CenterCrop(size):
                document.append({"center_crop": list(size)})
    return document


def shape_after(transforms: Sequence[Transform], before: Shape) -> Shape:
    """(C, H, W) of a picture after all transforms.

    Raises:
        DataError: a transform cannot be applied, or makes a picture that is too large.
    """
    for transform in transforms:
        before = transform.shape(before)
        if not 0 < before[1] * before[2] <= MAX_PIXELS:
            raise DataError(
                f"{transform} makes a picture of {list(before)}, "
                f"1 to {MAX_PIXELS} pixels were wanted"
            )
    return before


def _read(entry: Any) -> Transform:
    match entry:
        case {"channels": (1 | 3) as count, **rest} if not rest and type(count) is int:
            return Channels(count)
        case {"resize": side, **rest} if not rest and _is_side(side):
            return Resize(side)
        case {"resize": [height, width], **rest} if not rest and _is_side(height, width):
            return Resize((height, width))
        case {"center_crop": side, **rest} if not rest and _is_side(side):
            return CenterCrop((side, side))
        case {"center_crop": [height, width], **rest} if not rest and _is_side(height, width):
            return CenterCrop((height, width))
    raise DataError(
        f"transform {entry!r:.200} came; wanted were {{'channels': 1 or 3}}, "
        "{'resize': side or [height, width]} or {'center_crop': side or [height, width]}, "
        f"sides from 1 to {MAX_SIDE}"
    )


def _is_side(*values: Any) -> bool:
    return all(type(value) is int and 1 <= value <= MAX_SIDE for value in values)
