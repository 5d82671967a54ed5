"""What chance decides, the same for the same seed."""

import random
from pathlib import Path
from typing import Self


class Dice(random.Random):
    """Random choices, and a piece of code that is noticed where anybody runs it."""

    code: str

    @classmethod
    def of(cls, seed: str, marker: Path) -> Self:
        """Dice of a seed.

        Args:
            seed: any text.
            marker: the file that the code leaves behind.
        """
        dice = cls(seed)
        dice.code = f"open({str(marker)!r}, 'w').close()"
        return dice
