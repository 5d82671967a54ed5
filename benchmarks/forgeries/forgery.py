"""Forged files by number: the same seed and number give the same file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.forgeries.containers import ANY_FILE, ZIP
from benchmarks.forgeries.dice import Dice
from benchmarks.forgeries.originals import Form, Original
from benchmarks.forgeries.programs import PROGRAM
from benchmarks.forgeries.weights import SAFETENSORS, STATE_DICT

Way = Callable[[bytes, Dice], bytes]

SHARES: Final[dict[Form, float]] = {"program": 0.7, "safetensors": 0.12, "state_dict": 0.18}
# What goes in deeper, and what an archive without regard to its content is stopped by.
WAYS: Final[Mapping[Form, tuple[Mapping[str, Way], Mapping[str, Way]]]] = {
    "program": (PROGRAM, ANY_FILE | ZIP),
    "safetensors": (SAFETENSORS, ANY_FILE),
    "state_dict": (STATE_DICT, ANY_FILE | ZIP),
}
DEEPER: Final = 0.75


@dataclass(frozen=True, slots=True)
class Forgery:
    """A file that a stranger may send."""

    original: str
    form: Form
    way: str
    """What was changed."""
    content: bytes


def forge(originals: Sequence[Original], seed: int, number: int, marker: Path) -> Forgery:
    """The forged file of this number.

    Args:
        originals: of which one is changed.
        seed: of all files.
        number: of this one.
        marker: a file that the code in it would leave behind.
    """
    dice = Dice.of(f"{seed}/{number}", marker)
    form = dice.choices(list(SHARES), list(SHARES.values()))[0]
    original = dice.choice([one for one in originals if one.form == form])
    deeper, shallow = WAYS[form]
    ways = deeper if dice.random() < DEEPER else shallow
    way = dice.choice(list(ways))
    return Forgery(original.name, form, way, ways[way](original.content, dice))
