"""What the training of a candidate brings down."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from compress.gradients import Likelihood
from search.recovery.material import Example

TEMPERATURE = 2.0
LABEL_SHARE = 0.5  # of the labels in a fine-tuning, beside the dense answers

Aim = Callable[[Tensor, Example], Tensor]
"""The mean over the answers (n, ...) of a candidate to an example; a scalar."""


def distance(likelihood: Likelihood) -> Aim:
    """How far the answers are from the dense network's.

    Of classes the divergence of Kullback and Leibler from softened answers, times the squared
    temperature (Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015);
    of values the mean square.
    """
    return _squared if likelihood == "values" else _divergence


def labelled(answers: Tensor, example: Example) -> Tensor:
    """The cross-entropy of the labels and the distance from the dense network's answers, mixed."""
    assert example.labels is not None  # else the order would have been refused
    entropy = F.cross_entropy(answers.float(), example.labels)
    return LABEL_SHARE * entropy + (1 - LABEL_SHARE) * _divergence(answers, example)


def _divergence(answers: Tensor, example: Example) -> Tensor:
    found, wanted = (
        (each.float() / TEMPERATURE).log_softmax(1) for each in (answers, example.answers)
    )
    return TEMPERATURE**2 * F.kl_div(found, wanted, reduction="batchmean", log_target=True)


def _squared(answers: Tensor, example: Example) -> Tensor:
    return F.mse_loss(answers.float(), example.answers.float())
