"""The learning rate that a network bears.

Found by trying rising rates for a step each until the aim is ruined (Smith, "Cyclical Learning
Rates for Training Neural Networks", 2017). A factorised and repaired network is near its best
already, so what a low rate gains is lost in the noise; where ruin begins is seen clearly.
"""

import copy
from collections.abc import Collection
from itertools import islice

import torch
from torch import nn

from search.recovery.aim import Aim
from search.recovery.box import Box
from search.recovery.material import Material
from search.recovery.step import Stepper, drawing_from, learning

LOWEST, HIGHEST = 1e-4, 1e-1
STEPS = 30
SMOOTHING = 0.8  # of what was seen before
RUIN = 4.0  # times the least that was seen: less is noise where a network is nearly dense
MARGIN = 32.0  # between the rate that ruins and the one to train with


def bearable_rate(
    model: nn.Module,
    aim: Aim,
    material: Material,
    *,
    seed: int,
    box: Box,
    kept: Collection[str] = (),
) -> float:
    """A 32nd of the rate that ruins the network, or of the last that there was time for.

    Args:
        model: left as it is.
        aim: what the training will bring down.
        material: of which the first batches are taken.
        seed: of their order, and of dropout.
        box: the time there is.
        kept: names of parameters that learn nothing.
    """
    model = copy.deepcopy(model)
    examples = material.examples(torch.Generator().manual_seed(seed))
    rate, smooth, least = LOWEST, 0.0, 0.0
    with drawing_from(seed, material.device), learning(model, kept):
        stepper = Stepper(model, aim)
        for i, example in enumerate(islice(examples, STEPS)):
            rate = LOWEST * (HIGHEST / LOWEST) ** (i / (STEPS - 1))
            found = stepper.step(example, rate)
            smooth = SMOOTHING * smooth + (1 - SMOOTHING) * found if i else found
            least = min(least, smooth) if i else smooth
            if not smooth <= RUIN * least or box.left == 0:
                break
    return rate / MARGIN
