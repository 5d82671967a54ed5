"""The one shape that all pictures of an archive must have once they are transformed."""

from collections.abc import Iterable, Sequence

from search.data.archive import Archive, Member
from search.data.picture_header import (
    HEAD_BYTES,
    LONG_HEAD_BYTES,
    PictureHeader,
    ShortHeadError,
    read_header,
)
from search.data.transforms import Shape, Transform, shape_after
from search.errors import DataError

COLOURS = 3  # decoded to, whatever the file holds; {"channels": 1} makes them grey


def common_shape(
    archive: Archive, pictures: Iterable[Member], transforms: Sequence[Transform]
) -> Shape:
    """(C, H, W) of every picture after the transforms, from the headers alone.

    Raises:
        DataError: a header is none, or two pictures differ; the message names them.
        ArchiveError: a picture cannot be read.
    """
    first: Member | None = None
    wanted: Shape | None = None
    for picture in pictures:
        header = header_of(archive, picture)
        try:
            shape = shape_after(transforms, (COLOURS, header.height, header.width))
        except DataError as error:
            raise DataError(f"{picture.name!r}: {error}") from error
        if first is None or wanted is None:
            first, wanted = picture, shape
        elif shape != wanted:
            raise DataError(
                f"{first.name!r} is {list(wanted)} after the transforms, {picture.name!r} "
                f"{list(shape)}: one shape was wanted, say "
                'transforms=[{"resize": 256}, {"center_crop": 224}]'
            )
    if wanted is None:
        raise DataError("an archive without pictures came")
    return wanted


def header_of(archive: Archive, picture: Member) -> PictureHeader:
    """The header of one picture.

    Raises:
        DataError, ArchiveError: it has none, or cannot be read.
    """
    try:
        return read_header(picture.name, archive.read(picture, HEAD_BYTES))
    except ShortHeadError:
        if picture.size_bytes <= HEAD_BYTES:
            raise
    return read_header(picture.name, archive.read(picture, LONG_HEAD_BYTES))
