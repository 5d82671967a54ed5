"""The tensors of a `.pt2` archive: what each is, and in which member its bytes lie.

Importable without torch; `compress.program.tensors` reads the bytes.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from compress.errors import ProgramError
from compress.program.archive import Archive
from compress.program.document import SHOWN, entry, parse, union
from compress.program.specs import TensorSpec, tensor_spec

MAX_CONFIG_BYTES: Final = 64 << 20

ITEM_BYTES: Final = {
    "bool": 1, "uint8": 1, "int8": 1, "int16": 2, "float16": 2, "bfloat16": 2, "int32": 4,
    "float32": 4, "int64": 8, "float64": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Payload:
    """A view of the bytes of one member; tensors that are tied have equal payloads."""

    member: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    @property
    def values(self) -> int:
        return math.prod(self.shape)

    @property
    def reach(self) -> int:
        """Values of the member up to the last one that is seen."""
        if not self.values:
            return 0
        steps = zip(self.shape, self.strides, strict=True)
        return self.offset + 1 + sum((size - 1) * stride for size, stride in steps)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A parameter, a buffer or a constant."""

    payload: Payload
    is_parameter: bool
    requires_grad: bool
    persistent: bool
    """Whether the state dict holds it."""


def read_state(archive: Archive) -> dict[str, StoredTensor]:
    """The tensors of an archive by their names in the network.

    Raises:
        ProgramError: a pickled tensor, bytes that are not those of its shape, strides that see
            one value twice, or tensors that are larger together than the archive.
    """
    state: dict[str, StoredTensor] = {}
    for folder, prefix in (("weights", "weight"), ("constants", "tensor")):
        path = f"data/{folder}/model_{folder}_config.json"
        document = parse(archive.read(path, MAX_CONFIG_BYTES), path)
        for name, description in entry(document, "config", dict).items():
            if name in state:
                raise ProgramError(f"{name[:SHOWN]!r} is a weight and a constant")
            try:
                state[name] = _stored(archive, f"data/{folder}/", prefix, description)
            except ProgramError as error:
                error.add_note(f"in the tensor {name[:SHOWN]!r} of {path}")
                raise
    total = sum(
        payload.values * ITEM_BYTES[payload.dtype]
        for payload in {stored.payload for stored in state.values()}
    )
    if total > archive.size:
        raise ProgramError(
            f"tensors of {total} bytes in an archive of {archive.size}: they overlap; "
            "call .clone() on those that are views before the export"
        )
    return state


def _stored(archive: Archive, folder: str, prefix: str, description: Any) -> StoredTensor:
    member = entry(description, "path_name", str)
    if entry(description, "use_pickle", bool) or not re.fullmatch(rf"{prefix}_\d{{1,9}}", member):
        raise ProgramError(
            "it is stored as a pickle, which is never read: plain tensors were wanted"
        )
    meta = entry(description, "tensor_meta", dict)
    spec = tensor_spec(member, meta)
    if any(symbol is not None for symbol in spec.symbols):
        raise ProgramError("its shape holds symbols, numbers were wanted")
    strides = tuple(_whole(stride) for stride in entry(meta, "strides", list))
    payload = Payload(
        folder + member,
        spec.dtype,
        spec.shape,
        strides,
        _whole(entry(meta, "storage_offset", dict)),
    )
    _check(archive, payload, spec)
    is_parameter = entry(description, "is_param", bool)
    requires_grad = entry(meta, "requires_grad", bool) and is_parameter
    return StoredTensor(payload, is_parameter, requires_grad, folder.endswith("weights/"))


def _check(archive: Archive, payload: Payload, spec: TensorSpec) -> None:
    if len(payload.strides) != len(spec.shape):
        raise ProgramError(f"it has {len(spec.shape)} sizes and {len(payload.strides)} strides")
    if payload.member not in archive:
        raise ProgramError(f"its bytes are not in the archive: {payload.member!r} is missing")
    size = archive.members[payload.member].size
    if payload.reach * ITEM_BYTES[payload.dtype] > size:
        raise ProgramError(
            f"{payload.dtype} {list(payload.shape)} with strides {list(payload.strides)} from "
            f"{payload.offset} on does not fit into {size} bytes"
        )
    covered = 1
    for stride, length in sorted(_axes(payload)):
        if stride < covered:
            raise ProgramError(
                f"strides {list(payload.strides)} of shape {list(payload.shape)} see a value "
                "twice: call .contiguous() before the export"
            )
        covered += stride * (length - 1)


def _axes(payload: Payload) -> Iterator[tuple[int, int]]:
    """(stride, length) of the axes that are longer than one."""
    if payload.values:
        for length, stride in zip(payload.shape, payload.strides, strict=True):
            if length > 1:
                yield stride, length


def _whole(value: Any) -> int:
    kind, number = union(value)
    if kind != "as_int" or type(number) is not int or number < 0:
        raise ProgramError(f"{number!r} is no stride and no offset: whole numbers were wanted")
    return number
