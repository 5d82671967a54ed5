"""What `torch.save` writes, looked at without torch and without loading the pickle in it.

A zip archive of stored entries under one folder: `data.pkl`, which names classes and functions and
the raw storages `data/0`, `data/1` and so on. The pickle is taken apart into its opcodes, which
runs nothing, so that one that could never be state is refused before anybody opens it.
"""

import pickletools
import re
import zipfile
from pathlib import Path
from typing import Final

from compress.errors import ArchiveError, UnsafeArchiveError
from compress.zip_directory import ZipLimits, check_exact, open_zip

MAX_ENTRIES: Final = 65_536
MAX_PICKLE_BYTES: Final = 16 << 20
MAX_OPCODES: Final = 5_000_000

ENTRY: Final = re.compile(
    r"[^/]+/(data\.pkl|version|byteorder|data/\d+"
    r"|\.data/serialization_id|\.format_version|\.storage_alignment)"
)
# The entries of other archives that torch writes, and what to send instead.
OTHERS: Final = {
    "/constants.pkl": "a TorchScript archive: send model.state_dict() as torch.save writes it",
    "/models/model.json": "an exported program, which brings its architecture: send it without one",
}
PACKAGES: Final = ("torch", "collections", "_codecs")
HINT: Final = "save model.state_dict() alone, with torch.save or safetensors.torch.save_file"


def check_torch_archive(path: Path) -> None:
    """Refuse what is no state dict that `torch.save` has written.

    Raises:
        UnsafeArchiveError: it holds other files, or names what is no part of torch.
        ArchiveError: it is damaged, deflated, or hides bytes beside the archive.
    """
    check_exact(path)
    limits = ZipLimits(
        entries=MAX_ENTRIES,
        total_bytes=path.stat().st_size,  # stored, so the file holds as much as it gives
        entry_bytes=path.stat().st_size,
        directory_bytes=16 << 20,
    )
    with open_zip(path, limits) as archive:
        pickled = _pickle_of(archive)
        if pickled.file_size > MAX_PICKLE_BYTES:
            raise ArchiveError(f"{pickled.filename!r} has {pickled.file_size} bytes: {HINT}")
        _check_names(archive.read(pickled))


def _pickle_of(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The entry of the pickle, all others checked."""
    entries = archive.infolist()
    for ending, told in OTHERS.items():
        if any(entry.filename.endswith(ending) for entry in entries):
            raise UnsafeArchiveError(told)
    for entry in entries:
        if not ENTRY.fullmatch(entry.filename):
            raise UnsafeArchiveError(
                f"{entry.filename!r} is nothing that torch.save writes: {HINT}"
            )
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ArchiveError(f"{entry.filename!r} is deflated, stored was wanted")
    roots = {entry.filename.partition("/")[0] for entry in entries}
    found = {entry.filename.partition("/")[2]: entry for entry in entries}
    if len(roots) != 1 or not {"data.pkl", "version"} <= found.keys():
        raise UnsafeArchiveError(f"a zip archive that torch.save did not write came: {HINT}")
    return found["data.pkl"]


def _check_global(argument: str) -> None:
    """Look at `module name`."""
    module, _, name = argument.partition(" ")
    if module.partition(".")[0] not in PACKAGES:
        raise UnsafeArchiveError(f"the file names {module}.{name}: {HINT}")


def _check_names(pickled: bytes) -> None:
    """Refuse a pickle that names what lies outside torch."""
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(pickled)):
            if opcode.name == "GLOBAL":
                _check_global(str(argument))
            if opcode.name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"):
                raise UnsafeArchiveError(f"the file holds {opcode.name}, for which: {HINT}")
            if count > MAX_OPCODES:
                raise ArchiveError(f"more than {MAX_OPCODES} opcodes came: {HINT}")
    except (ValueError, UnicodeDecodeError) as error:
        if isinstance(error, ArchiveError):
            raise
        raise ArchiveError(f"the pickle in the file is damaged: {error}") from error
