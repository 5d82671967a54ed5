"""How the weights of recurrent layers are folded."""

from dataclasses import dataclass
from typing import Final, Self

from compress.errors import RankError
from compress.recurrent.modes import Modes
from search.config.errors import ConfigError

MOST_MODES: Final = 12  # of a side of a recurrent weight


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightModes:
    """How the two sides of a recurrent layer's weight are folded for the methods that fold."""

    weight: str
    """MODULE.WEIGHT, as `lstm.weight_hh_l0`."""
    inputs: tuple[int, ...]
    """Their product is the number of inputs; the last varies fastest."""
    outputs: tuple[int, ...]
    """Likewise of outputs, those of all gates."""

    def __post_init__(self) -> None:
        if max(len(self.inputs), len(self.outputs)) > MOST_MODES:
            raise ConfigError(
                f"{len(self.inputs)} modes of the inputs and {len(self.outputs)} of the outputs of "
                f"{self.weight} came, {MOST_MODES} at most were wanted"
            )
        try:
            Modes(self.inputs, self.outputs)
        except RankError as error:
            raise ConfigError(f"of {self.weight}: {error}") from error

    @property
    def modes(self) -> Modes:
        """As the decompositions take them."""
        return Modes(self.inputs, self.outputs)

    @classmethod
    def parsed(cls, text: str) -> Self:
        """Modes as they are written on a command line: lstm.weight_hh_l0=16x32:32x64.

        Raises:
            ConfigError: it cannot be read.
        """
        weight, _, sides = text.partition("=")
        try:
            inputs, outputs = (tuple(map(int, side.split("x"))) for side in sides.split(":"))
        except ValueError:
            raise ConfigError(
                f"modes {text!r} came, WEIGHT=INPUTS:OUTPUTS was wanted: "
                "lstm.weight_hh_l0=16x32:32x64"
            ) from None
        return cls(weight=weight, inputs=inputs, outputs=outputs)
