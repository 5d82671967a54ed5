"""Safetensors files and state dicts of torch.save with a header, a pickle or a storage changed."""

import json
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, Final

from benchmarks.forgeries.containers import members, packed
from benchmarks.forgeries.dice import Dice
from benchmarks.forgeries.documents import changed_, nested, number
from benchmarks.forgeries.programs import Executed

HEADER_AT: Final = 8
KINDS: Final = ("F64", "F32", "F16", "BF16", "I64", "I8", "BOOL", "F8_E4M3", "C64", "", "f32")
GLOBALS: Final = (
    b"torch\nload", b"torch.hub\nload", b"torch\nload_library", b"torch.ops\nload_library",
    b"torch._utils\n_rebuild_parameter", b"torch._utils\n_rebuild_sparse_tensor",
    b"torch._utils\n_rebuild_qtensor", b"torch._utils\n_rebuild_wrapper_subclass",
    b"torch._tensor\n_rebuild_from_type_v2", b"torch\nSize", b"torch\nfloat8_e4m3fn",
    b"collections\nCounter", b"_codecs\nencode", b"torch\nQUInt8Storage",
    b"torch.distributed\ninit_process_group", b"torch.serialization\n_get_layout",
    b"torch.nn.modules.linear\nLinear", b"builtins\neval", b"posix\nsystem",
)  # fmt: skip


def header(content: bytes, dice: Dice) -> bytes:
    """The header of a safetensors file says something else."""
    length = int.from_bytes(content[:HEADER_AT], "little")
    document = json.loads(content[HEADER_AT : HEADER_AT + length])
    tensors = [entry for name, entry in document.items() if name != "__metadata__"]
    for _ in range(dice.choice((1, 1, 2))):
        one, other = dice.choice(tensors), dice.choice(tensors)
        match dice.randrange(6):
            case 0:
                one["dtype"] = dice.choice(KINDS)
            case 1:
                one["shape"] = [number(dice) for _ in range(dice.randrange(6))]
            case 2:
                one["data_offsets"] = dice.choice((other.get("data_offsets"), [number(dice)] * 2))
            case 3:
                document["__metadata__"] = dice.choice(
                    (dice.code, {"x": 1}, {"x": dice.code}, None, [])
                )
            case _:
                changed_(document, dice)
    said = json.dumps(document).encode()
    said = nested(said, dice) if dice.random() < 0.05 else said
    size = len(said) if dice.random() < 0.9 else int(number(dice)) % 2**64
    return size.to_bytes(8, "little") + said + content[HEADER_AT + length :]


def pickle_bytes(content: bytes, dice: Dice) -> bytes:
    """Bytes of the pickle are others, the checksum right."""

    def change(pickled: bytes) -> bytes:
        changed = bytearray(pickled)
        for _ in range(dice.choice((1, 1, 2, 5))):
            changed[dice.randrange(len(changed))] = dice.randrange(256)
        return bytes(changed)

    return _repickled(content, change)


def pickle_numbers(content: bytes, dice: Dice) -> bytes:
    """Sizes, strides, offsets, counts or names of storages are others."""

    def change(pickled: bytes) -> bytes:
        found = [
            (place, size)
            for name, place, size in _opcodes(pickled)
            if name in ("BININT1", "BININT2", "BININT", "LONG1", "BINUNICODE")
        ]
        for place, size in sorted(dice.sample(found, dice.choice((1, 1, 2))), reverse=True):
            if pickled[place : place + 1] == b"X":
                text = dice.choice((b"0", b"99", b"cuda", b"../x", dice.code.encode()))
                new = b"X" + len(text).to_bytes(4, "little") + text
            else:
                new = pickle.dumps(int(number(dice)), 2)[2:-1]
            pickled = pickled[:place] + new + pickled[place + size :]
        return pickled

    return _repickled(content, change)


def pickle_globals(content: bytes, dice: Dice) -> bytes:
    """The pickle names other functions and classes, of torch and of others."""

    def change(pickled: bytes) -> bytes:
        found = [(place, size) for name, place, size in _opcodes(pickled) if name == "GLOBAL"]
        place, size = dice.choice(found)
        return pickled[:place] + b"c" + dice.choice(GLOBALS) + b"\n" + pickled[place + size :]

    return _repickled(content, change)


def other_pickle(content: bytes, dice: Dice) -> bytes:
    """Another object altogether: code, nests without end, a state dict of no tensors."""
    shared: Any = {}
    for _ in range(40):
        shared = {"a": shared, "b": shared}
    made = dice.choice(
        (Executed(dice.code), shared, {"a": 1}, {1: 2}, [], None, {"state_dict": {}})
    )
    if dice.random() < 0.2:
        depth = dice.choice((100, 5000))
        return _repickled(content, lambda _: b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".")
    return _repickled(content, lambda _: pickle.dumps(made, dice.choice((0, 1, 2, 4, 5))))


def _repickled(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    found = members(content)
    (name,) = (name for name in found if name.endswith("/data.pkl"))
    return packed(found | {name: change(found[name])})


def _opcodes(pickled: bytes) -> list[tuple[str, int, int]]:
    """Name, place and size of each opcode."""
    found = [(opcode.name, place) for opcode, _, place in pickletools.genops(pickled)]
    ends = [place for _, place in found[1:]] + [len(pickled)]
    return [
        (name, place or 0, (end or 0) - (place or 0))
        for (name, place), end in zip(found, ends, strict=True)
    ]


SAFETENSORS: Final[Mapping[str, Callable[[bytes, Dice], bytes]]] = {
    "header": header,
}
STATE_DICT: Final[Mapping[str, Callable[[bytes, Dice], bytes]]] = {
    "bytes of the pickle": pickle_bytes,
    "numbers in the pickle": pickle_numbers,
    "names in the pickle": pickle_globals,
    "another pickle": other_pickle,
}
