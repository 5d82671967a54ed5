"""Train a factorised network towards the dense one, and keep the better of before and after."""

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from compress.gradients import Likelihood
from search.config import Recovery, RecoveryMethod
from search.progress import Report, silent
from search.recovery.aim import distance, labelled
from search.recovery.box import Box, Clock
from search.recovery.material import Material
from search.recovery.range_test import bearable_rate
from search.recovery.training import train_
from search.recovery.unchanged import unchanged

RANGE_SHARE = 0.2  # of the box, at most, to find the learning rate
ATTEMPTS = 3
LOWER = 4.0  # times, the rate of the next attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What the training of one candidate came to."""

    method: RecoveryMethod
    before: float
    after: float
    """What was minimised, on the samples left out: in nats, or squared units of the metric mse."""
    rate: float
    epochs: float
    seconds: float
    cut_short: bool
    """Whether the job's time ended the training before its own did."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def recover_(
    model: nn.Module,
    material: Material,
    likelihood: Likelihood,
    config: Recovery,
    report: Report = silent,
    *,
    seconds_left: float = math.inf,
    clock: Clock = time.monotonic,
) -> Recovered:
    """Train `model`, which ends in eval mode without gradients, and no worse than it came.

    Where nothing is gained the rate was too high, and a lower one is tried while there is time.
    What comes before the first factorised layer stays as it is.

    Args:
        model: factorised and repaired, in eval mode.
        material: what it learns from, with labels if the method is finetune.
        likelihood: what the answers stand for.
        config: method, time and seed.
        report: told how far it is.
        seconds_left: of the job, with which the training ends at the latest.
        clock: seconds.
    """
    box = Box(min(config.max_seconds, seconds_left), clock)
    aim = labelled if config.method == "finetune" else distance(likelihood)
    report(0.0, "recovery: looking for the learning rate")
    kept = unchanged(model, next(material.judging()).inputs[:1])
    rate = bearable_rate(
        model, aim, material, seed=config.seed, box=box.part(RANGE_SHARE), kept=kept
    )
    reached = 0.0

    def onward(way: float, sentence: str) -> None:
        """Another attempt begins where the last one ended."""
        nonlocal reached
        reached = max(reached, way)
        report(reached, sentence)

    for attempt in range(ATTEMPTS):
        rate /= LOWER if attempt else 1
        training = train_(
            model,
            aim,
            material,
            rate=rate,
            max_epochs=config.max_epochs,
            seed=config.seed,
            box=box.part(),
            kept=kept,
            report=onward,
        )
        if training.after < training.before or box.left == 0:
            break
    return Recovered(
        method=config.method,
        before=training.before,
        after=training.after,
        rate=rate,
        epochs=round(training.epochs, 2),
        seconds=round(box.seconds, 2),
        cut_short=seconds_left < config.max_seconds and box.left == 0,
    )
