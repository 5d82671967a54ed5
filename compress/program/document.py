"""JSON from strangers: parsed strictly, its entries handed out with their types checked.

Importable without torch.
"""

import json
from typing import Any, Final, NoReturn, TypeVar

from compress.errors import ProgramError

MAX_INTEGER: Final = 2**63 - 1
SHOWN: Final = 80  # characters of what came that a message repeats

T = TypeVar("T")


def parse(content: bytes | bytearray, name: str) -> dict[str, Any]:
    """The object in a JSON document.

    Raises:
        ProgramError: no JSON object, a key that comes twice, NaN or infinity, or an integer of
            more than 64 bits.
    """
    try:
        document = json.loads(
            content, object_pairs_hook=_unique, parse_constant=_no_number, parse_int=_bounded
        )
    except (ValueError, RecursionError) as error:
        raise ProgramError(f"{name!r} is no JSON that torch.export.save writes: {error}") from error
    if not isinstance(document, dict):
        raise ProgramError(f"{name!r} holds {shown(document)}, a JSON object was wanted")
    return document


def entry(mapping: Any, key: str, kind: type[T]) -> T:
    """The value of a key, of this type exactly: True is no integer.

    Raises:
        ProgramError: it is missing, or of another type.
    """
    if type(mapping) is not dict or key not in mapping:
        raise ProgramError(f"an object with {key!r} was wanted, {shown(mapping)} came")
    if type(mapping[key]) is not kind:
        raise ProgramError(f"{key!r} is {shown(mapping[key])}, {kind.__name__} was wanted")
    return mapping[key]


def union(value: Any) -> tuple[str, Any]:
    """The kind and the content of a union, which the format writes as an object of one key.

    Raises:
        ProgramError: no such object.
    """
    if type(value) is not dict or len(value) != 1:
        raise ProgramError(f"an object of one key was wanted, {shown(value)} came")
    return next(iter(value.items()))


def shown(value: Any) -> str:
    """What came, as a message repeats it: cut short."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a key comes twice")
    return document


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _bounded(text: str) -> int:
    number = int(text) if len(text) < 21 else MAX_INTEGER + 1
    if abs(number) > MAX_INTEGER:
        raise ValueError(f"{shown(text)} is an integer of more than 64 bits")
    return number
