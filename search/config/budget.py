"""The loss that a user allows."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt, Le

from search.config.errors import ConfigError

Unit = Literal["points", "relative_percent"]
Metric = Literal["top1", "top5", "loss", "agreement", "mse"]

# Metrics of which a share of the samples is right; the others are averages of a real number.
COUNTED: tuple[Metric, ...] = ("top1", "top5", "agreement")
UNLABELLED: tuple[Metric, ...] = ("agreement", "mse")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The loss that the user allows.

    `points` are percentage points of a counted metric (top1, top5, agreement) and plain
    differences of the others; `relative_percent` is a share of the dense network's own value.
    With `confidence` the promise holds for the one-sided upper bound of the paired loss, with
    None for the point estimate.
    """

    max_loss: float
    unit: Unit
    metric: Metric = "top1"
    confidence: Annotated[float, Gt(0.5), Le(0.999)] | None = 0.95

    def __post_init__(self) -> None:
        if not math.isfinite(self.max_loss) or not 0 <= self.max_loss <= 100:
            raise ConfigError(
                f"max_loss {self.max_loss} came, a number from 0 to 100 was wanted: "
                f"the {self.metric} you can afford to lose, in {self.unit}"
            )
        if self.metric in UNLABELLED and self.unit == "relative_percent":
            raise ConfigError(
                f"{self.metric} compares with the dense network itself, whose value is fixed: "
                "give the budget in points"
            )

    def allowed(self, dense: float) -> float:
        """The budget as a difference of the metric itself, given the dense network's value.

        Counted metrics are shares in [0, 1] here: half a point is 0.005.
        """
        if self.unit == "relative_percent":
            return abs(dense) * self.max_loss / 100
        return self.max_loss / 100 if self.metric in COUNTED else self.max_loss

    def shown(self, loss: float) -> float:
        """A difference of the metric in the numbers a person reads: points where counted."""
        return 100 * loss if self.metric in COUNTED else loss
