"""How candidates are trained before they are judged."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, Self

from annotated_types import Ge, Gt, Le

from search.config.errors import ConfigError

# What a candidate learns from after it was factorised and repaired: nothing, the dense network's
# answers, or those and the labels.
RecoveryMethod = Literal["none", "distil", "finetune"]

MOST_SHIFT: Final = 64  # pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How pictures are varied each time a candidate learns from them; by default not at all."""

    flip: bool = False
    """Half of them mirrored left to right: of digits and letters that changes the class."""
    shift: Annotated[int, Ge(0), Le(MOST_SHIFT)] = 0
    """Pixels, up to which each is moved up or down and to a side. One that is cropped shows what
    the crop leaves out; beyond its edges they are repeated."""

    def __bool__(self) -> bool:
        """Whether anything is varied."""
        return self.flip or self.shift > 0

    @classmethod
    def parsed(cls, text: str) -> Self:
        """What a text declares, as it stands on a command line: flip,shift=4, or nothing.

        Raises:
            ConfigError: it cannot be read.
        """
        found: dict[str, Any] = {}
        for word in text.split(",") if text else []:
            match word.split("="):
                case ["flip"]:
                    found["flip"] = True
                case ["shift", pixels] if pixels.isdecimal() and int(pixels) <= MOST_SHIFT:
                    found["shift"] = int(pixels)
                case _:
                    raise ConfigError(
                        f"augment {text!r} came, flip, shift=PIXELS or both with a comma between "
                        f"were wanted, {MOST_SHIFT} pixels at most"
                    )
        return cls(**found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """How each candidate is trained before its loss is measured, on training samples alone.

    Training ends with `max_seconds` or `max_epochs`, whichever comes first. Where the seconds end
    it, two jobs of one seed differ.
    """

    method: RecoveryMethod = "none"
    max_seconds: Annotated[float, Gt(0), Le(86400)] = 30.0
    """Of a candidate."""
    max_epochs: Annotated[int, Ge(1), Le(1000)] = 20
    augment: Augmentation = field(default_factory=Augmentation)
    """The dense network then answers each varied picture anew, which takes a part of the time."""
    seed: Annotated[int, Ge(0)] = 0

    def __post_init__(self) -> None:
        if self.augment and self.method == "none":
            raise ConfigError(
                "augment came with recovery none, which trains nothing: choose recovery distil or "
                "finetune"
            )
