"""JSON documents with a value changed, moved or taken away."""

import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, Final

from benchmarks.forgeries.dice import Dice

NUMBERS: Final = (
    -1, 0, 1, 2, 3, 7, -(2**31), 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, -(2**63), 2**63,
    10**30, 1.5, -0.0, 1e308, 1e-320, True,
)  # fmt: skip
TEXTS: Final = (
    "", " ", "\0", "x" * 10_000, "__class__", "forward", "../../etc/passwd", "\ud800", "NaN", "s77",
    "Infinity", "%s%n{0.__class__}", "0.weight",
)  # fmt: skip
NUMBER: Final = re.compile(rb"(?<=[ \[])\d+(?=[,\]}])")
DEPTH: Final = 300  # as deep as Python's writer goes; `nested` goes on

Slot = tuple[Any, Any]
"""A list or an object of a document, and an index or a key of it."""


def slots(document: Any, but: tuple[str, ...] = ()) -> Iterator[Slot]:
    """Every place of a document in which a value stands, those below the keys `but` left out."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key not in but:
                yield document, key
                yield from slots(value, but)
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield document, index
            yield from slots(value, but)


def number(dice: Dice) -> int | float:
    """A number that somebody may have forgotten."""
    return dice.choice(NUMBERS) if dice.random() < 0.8 else dice.randint(-20, 20)


def changed_(document: Any, dice: Dice, but: tuple[str, ...] = ()) -> None:
    """Change one value somewhere in a document.

    Args:
        document: an object or a list, changed in place.
        dice: choose.
        but: keys below which nothing is changed.
    """
    places = list(slots(document, but))
    if not places:
        return
    container, key = dice.choice(places)
    value = container[key]
    if dice.random() < 0.5:  # of the same type, which goes in deeper
        container[key] = _alike(value, dice)
        return
    match dice.randrange(7):
        case 0:
            del container[key]
        case 1:
            other, place = dice.choice(places)
            container[key] = deepcopy(other[place])
        case 2:
            container[key] = _deep(dice)
        case 3:
            container[key] = dice.choice(
                (None, [], {}, [[]], {"": None}, [value], {"as_int": value})
            )
        case 4:
            container[key] = number(dice)
        case 5:
            container[key] = dice.choice((*TEXTS, dice.code))
        case _ if isinstance(container, dict):
            container[dice.choice((*TEXTS, dice.code))] = container.pop(key)
        case _:
            container.insert(key, value)


def nested(text: bytes, dice: Dice) -> bytes:
    """A document with lists in lists without end in place of one of its numbers."""
    places = [found.span() for found in NUMBER.finditer(text)] or [(0, 0)]
    start, end = dice.choice(places)
    deep = dice.choice((1000, 100_000))
    return text[:start] + b"[" * deep + b"]" * deep + text[end:]


def _alike(value: Any, dice: Dice) -> Any:
    found = value
    match value:
        case bool():
            found = not value
        case int():
            found = dice.choice((number(dice), value + 1, value - 1, -value, value * 2))
        case float():
            found = dice.choice((number(dice), -value, value * 1e6, float("nan"), float("inf")))
        case str():
            found = dice.choice((*TEXTS, dice.code, value + "_", value[:-1], value * 2))
        case list():
            found = dice.choice((value[::-1], value[1:], value * 2, [*value, number(dice)]))
        case dict():
            found = dict(dice.sample(list(value.items()), max(0, len(value) - 1)))
    return found


def _deep(dice: Dice) -> Any:
    deep: Any = 1
    for _ in range(dice.choice((5, 50, DEPTH))):
        deep = [deep] if dice.random() < 0.5 else {"as_ints": deep}
    return deep
