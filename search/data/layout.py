"""What the names in an archive of pictures say: which split, which class.

    cat/1.jpg  dog/2.jpg                      a folder for each class, as torchvision's ImageFolder
    train/cat/1.jpg  val/cat/2.jpg            the same for training pictures and for others
    0001.jpg  0001.cls  0002.jpg  0002.cls    a number beside each picture, as WebDataset's shards
    1.jpg  2.jpg                              no labels

A folder around all of it is left aside. Classes are numbered in the order of their names.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from compress.errors import UnsafeArchiveError
from search.data.archive import Archive, Member
from search.data.picture_header import EXTENSIONS
from search.errors import DataError

TRAIN: Final = "train"
HELD_OUT: Final = ("test", "val", "valid", "validation")
LABEL: Final = ".cls"
ASIDE: Final = (".json", ".txt")  # what a shard may hold besides: never read
LABEL_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Part:
    """The pictures of one split, in the order of their names."""

    pictures: tuple[Member, ...]
    labels: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Layout:
    """All pictures of an archive."""

    held_out: Part
    train: Part | None
    classes: tuple[str, ...]
    """Names of folders, by number; empty where the labels are numbers, or none."""


def read_layout(archive: Archive) -> Layout:
    """Sort the members of an archive; of them only labels are read.

    Raises:
        DataError: a member stands where none was wanted, or a label is no number.
        UnsafeArchiveError: a member is of another kind.
        ArchiveError: a label cannot be read. Each message names the member.
    """
    splits = _splits({_steps(member.name): member for member in archive.members})
    numbered = any(member.name.endswith(LABEL) for member in archive.members)
    if numbered:
        parts = {name: _numbered(archive, files) for name, files in splits.items()}
        classes: tuple[str, ...] = ()
    else:
        classes = tuple(sorted({s[0] for files in splits.values() for s in files if len(s) > 1}))
        parts = {name: _foldered(files, classes) for name, files in splits.items()}
    return Layout(parts["test"], parts.get(TRAIN), classes)


Steps = tuple[str, ...]
Files = dict[Steps, Member]


def _steps(name: str) -> Steps:
    return PurePosixPath(name).parts


def _splits(files: Files) -> dict[str, Files]:
    """The files of `test` and perhaps `train`, their names below the folder of the split."""
    if not files:
        raise DataError("an archive without files came; pictures were wanted")
    while len(tops := {steps[0] for steps in files}) == 1 and min(map(len, files)) > 1:
        if tops <= {TRAIN, *HELD_OUT}:
            break
        files = {steps[1:]: member for steps, member in files.items()}
    if not tops & {TRAIN, *HELD_OUT}:
        return {"test": files}
    held_out = sorted(tops - {TRAIN})
    if len(held_out) != 1 or held_out[0] not in HELD_OUT:
        raise DataError(
            f"folders {sorted(tops)} came; {TRAIN} and one of {', '.join(HELD_OUT)} were wanted, "
            "or the folders of the classes"
        )
    splits: dict[str, Files] = defaultdict(dict)
    for (top, *rest), member in files.items():
        splits["test" if top in HELD_OUT else TRAIN][tuple(rest)] = member
    return dict(splits)


def _foldered(files: Files, classes: Sequence[str]) -> Part:
    numbers = {name: number for number, name in enumerate(classes)}
    chosen = {steps: m for steps, m in sorted(files.items()) if _is_picture(m)}
    unlabelled = [member.name for steps, member in chosen.items() if len(steps) == 1]
    if unlabelled and classes:
        raise DataError(
            f"{unlabelled[0]!r} stands in no class, {len(chosen) - len(unlabelled)} others in "
            f"{', '.join(classes[:3])}: a folder for each class was wanted, or none"
        )
    labels = tuple(numbers[steps[0]] for steps in chosen) if classes else None
    return Part(tuple(chosen.values()), labels)


def _numbered(archive: Archive, files: Files) -> Part:
    """Pairs of a picture and its label under one key: the name up to its first dot."""
    pictures: Files = {}
    labels: dict[Steps, int] = {}
    for steps, member in sorted(files.items()):
        stem, _, _ = steps[-1].partition(".")
        key = (*steps[:-1], stem)
        if member.name.endswith(LABEL):
            labels[key] = _number(archive, member)
        elif _is_picture(member):
            if key in pictures:
                raise DataError(f"{pictures[key].name!r} and {member.name!r} are of one sample")
            pictures[key] = member
    _check_pairs(pictures, labels)
    return Part(tuple(pictures.values()), tuple(labels[key] for key in pictures))


def _check_pairs(pictures: Files, labels: Iterable[Steps]) -> None:
    for key in sorted(pictures.keys() ^ set(labels)):
        name = "/".join(key)
        wanted = LABEL if key in pictures else "picture"
        raise DataError(f"sample {name!r} has no {wanted}: each picture wants its {LABEL} file")


def _number(archive: Archive, member: Member) -> int:
    text = archive.read(member, LABEL_BYTES) if member.size_bytes <= LABEL_BYTES else b"too long"
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise DataError(f"{member.name!r} holds no class number from 0: {text!r} came")
    return number


def _is_picture(member: Member) -> bool:
    """Whether it is one; what is neither that nor known to be of no use is refused."""
    name = member.name.lower()
    if name.endswith(EXTENSIONS):
        return True
    if name.endswith((LABEL, *ASIDE)):
        return False
    raise UnsafeArchiveError(
        f"{member.name!r} came; pictures ({', '.join(EXTENSIONS)}) were wanted, and {LABEL} files"
    )
