"""One step of training."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from compress.folding import Norm
from search.recovery.aim import Aim
from search.recovery.material import Example

DECAY = 1e-4  # of the weights, apart from the gradient (Loshchilov and Hutter 2019)


class Stepper:
    """Adam on all that a network learns, in mixed precision on a GPU."""

    def __init__(self, model: nn.Module, aim: Aim) -> None:
        """Keep the network, which is learning."""
        self._model = model
        self._aim = aim
        self._optimizer = torch.optim.AdamW(model.parameters(), weight_decay=DECAY)

    def step(self, example: Example, rate: float) -> float:
        """Go one step down; what the aim was before it."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        kind = example.answers.device.type
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=kind == "cuda"):
            answers = self._model(example.inputs)
        loss = self._aim(answers, example)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return float(loss.detach())


@contextmanager
def drawing_from(seed: int, device: torch.device) -> Iterator[None]:
    """Seed what dropout draws from, and put it back afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def learning(model: nn.Module, kept: Collection[str] = ()) -> Iterator[None]:
    """Training mode with gradients, in the layout that convolutions learn faster in.

    The parameters named in `kept` learn nothing.

    Batch norms keep the statistics that repair gave them: those of some dozen batches are noise
    that a short training does not make up for. Afterwards eval mode without gradients, contiguous.
    """
    model.train()
    for name, weight in model.named_parameters():
        weight.requires_grad_(name not in kept)
    for module in model.modules():
        if isinstance(module, Norm):
            module.eval()
    if all(weight.ndim <= 4 for weight in model.parameters()):  # the layout is one of images
        model.to(memory_format=torch.channels_last)
    try:
        yield
    finally:
        model.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)
