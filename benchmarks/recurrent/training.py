"""One network trained from nothing: a recurrent layer, and a linear one on its last state."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.recurrent.matching import Match
from benchmarks.recurrent.tasks import Sequences, Task
from compress.recurrent.contraction import best_order
from compress.recurrent.layer import GRU, LSTM, Recurrent
from compress.recurrent.projection import Projection

CELLS = {"LSTM": LSTM, "GRU": GRU}
MOST_NORM = 1.0  # of the gradient


class Classifier(nn.Module):
    """(N, T, I) to the logits of all heads, (N, classes)."""

    def __init__(self, layer: Recurrent, classes: int) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(layer.hidden_size, classes)

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.layer(x)
        return self.head(outputs[:, -1])


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of one training."""

    accuracies: tuple[float, ...]
    """Percent of the test sequences, of each head."""
    loss: float
    """Mean over the last epoch."""
    seconds: float
    """CPU seconds of the training alone."""


def projection_of(match: Match, device: str = "cpu") -> Projection:
    """Factors drawn anew, in the order that costs least."""
    found = match.network
    return Projection(
        found.sizes, found.inputs, found.outputs, found.factors, best_order(found)
    ).to(device)


def classifier(task: Task, cell: str, features: int, matches: Mapping[str, Match]) -> Classifier:
    """A network with some weights factorised, all values drawn from torch's global generator."""
    weights = {name: projection_of(match) for name, match in matches.items()}
    layer = CELLS[cell](features, task.hidden_size, batch_first=True, weights=weights)
    return Classifier(layer, sum(task.heads))


def trained(
    task: Task,
    cell: str,
    matches: Mapping[str, Match],
    data: tuple[Sequences, Sequences],
    seed: int,
) -> Trained:
    """Adam at a rate that falls to zero along a line; the same batches for every format."""
    train, test = data
    torch.manual_seed(seed)
    model = classifier(task, cell, train.x.shape[-1], matches)
    optimiser = torch.optim.Adam(model.parameters(), task.rate)
    shuffler = torch.Generator().manual_seed(seed)
    steps = task.epochs * (len(train.x) // task.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    begun, losses = time.process_time(), list[float]()
    for _ in range(task.epochs):
        losses.clear()
        order = torch.randperm(len(train.x), generator=shuffler)
        for chosen in order[: steps // task.epochs * task.batch].split(task.batch):
            x, labels = train.batch(chosen)
            loss = _loss(task, model(x), labels)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), MOST_NORM)
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
    seconds = time.process_time() - begun
    return Trained(_accuracies(task, model, test), sum(losses) / len(losses), seconds)


def _loss(task: Task, logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, of several heads their sum."""
    parts: Any = zip(logits.split(task.heads, 1), labels.unbind(1), strict=True)
    return torch.stack([F.cross_entropy(part, of) for part, of in parts]).sum()


@torch.no_grad()
def _accuracies(task: Task, model: Classifier, test: Sequences) -> tuple[float, ...]:
    right = torch.zeros(len(task.heads))
    for chosen in torch.arange(len(test.x)).split(100):
        x, labels = test.batch(chosen)
        parts = model.eval()(x).split(task.heads, 1)
        told = torch.stack([part.argmax(1) for part in parts], 1)
        right += (told == labels).sum(0)
    return tuple(round(100 * float(count) / len(test.x), 2) for count in right)
