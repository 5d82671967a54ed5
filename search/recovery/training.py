"""Train a network in a box of time, and leave it as good as it has been at any look."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn

from search.progress import Report, silent
from search.recovery.aim import Aim
from search.recovery.box import Box
from search.recovery.judge import LOOKS, Judge
from search.recovery.material import Material
from search.recovery.step import Stepper, drawing_from, learning

PATIENCE = 3  # looks in a row that find nothing better end the training
WARM_UP = 0.1  # of the way, on which the rate rises


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What a training came to, by its aim on the samples left out."""

    before: float
    after: float
    """Of the state that was kept: at most `before`."""
    epochs: float


def train_(
    model: nn.Module,
    aim: Aim,
    material: Material,
    *,
    rate: float,
    max_epochs: int,
    seed: int,
    box: Box,
    kept: Collection[str] = (),
    report: Report = silent,
) -> Training:
    """Bring the aim down; the network ends in the best state that was seen, in eval mode.

    The rate rises over the first tenth of the way and falls in a line to zero at its end (Smith
    and Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning
    Rates", 2018). The way is `max_epochs` or the box, whichever is the shorter.

    Args:
        model: in eval mode.
        aim: what is minimised.
        material: to train on and to judge by.
        rate: the highest.
        max_epochs: at most so many.
        seed: of the order of the samples, and of dropout.
        box: the time there is.
        kept: names of parameters that learn nothing.
        report: told after each step how far it is.
    """
    examples = material.examples(torch.Generator().manual_seed(seed))
    steps, most, looks, waited = 0, max_epochs * material.steps, 0, 0
    with drawing_from(seed, material.device), learning(model, kept):
        judge, stepper = Judge(model, aim, material, box), Stepper(model, aim)
        for example in islice(examples, most):
            way = max(steps / most, box.spent)
            if way * LOOKS >= looks + 1:
                looks = int(way * LOOKS)
                waited = 0 if judge.look() else waited + 1
            if way == 1 or waited == PATIENCE:
                break
            stepper.step(example, rate * min(way / WARM_UP, (1 - way) / (1 - WARM_UP)))
            steps += 1
            report(way, f"recovery: epoch {math.ceil(steps / material.steps)}, {judge.told}")
        judge.look()
        judge.put_back_()
    return Training(before=judge.before, after=judge.best, epochs=steps / material.steps)
