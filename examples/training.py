"""Train one of our example networks: cross-entropy, SGD with a one-cycle schedule."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from compress.catalog import EXAMPLES
from compress.load import build_sequential

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""A batch of images as they are learned from, made anew each time."""


@torch.inference_mode()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images that the network, put in eval mode, classifies right."""
    network.eval()
    right = sum(
        int((network(some).argmax(1) == truth).sum())
        for some, truth in zip(images.split(256), labels.split(256), strict=True)
    )
    return right / len(images)


def train(
    network: nn.Module,
    train_set: tuple[Tensor, Tensor],
    *,
    epochs: int,
    batch: int,
    rate: float,
    augment: Augment,
    report: Callable[[int, nn.Module], None],
) -> nn.Module:
    """Train on float images in [0, 1] (N, C, H, W) and labels (N,), in an order that is seeded.

    Returns:
        The network itself, in eval mode.
    """
    generator = torch.Generator().manual_seed(0)
    images, labels = train_set
    optimizer = torch.optim.SGD(
        network.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    steps = math.ceil(len(images) / batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=rate, epochs=epochs, steps_per_epoch=steps
    )
    for epoch in range(epochs):
        network.train()
        for chosen in torch.randperm(len(images), generator=generator).split(batch):
            outputs = network(augment(images[chosen], generator))
            loss = F.cross_entropy(outputs, labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        report(epoch, network)
    return network.eval()


def main(
    architecture: str,
    train_set: tuple[Tensor, Tensor],
    test_set: tuple[Tensor, Tensor],
    folder: Path,
    *,
    epochs: int,
    batch: int,
    rate: float,
    augment: Augment,
) -> None:
    """Train, print the held-out accuracy after each epoch, save `model.safetensors`."""
    parser = argparse.ArgumentParser(description=f"Train {architecture} and save its weights.")
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    def report(epoch: int, network: nn.Module) -> None:
        print(
            f"epoch {epoch + 1}: held-out accuracy {accuracy(network, *test_set):.4f}", flush=True
        )

    torch.manual_seed(0)
    network = train(
        build_sequential(EXAMPLES[architecture]),
        train_set,
        epochs=arguments.epochs,
        batch=batch,
        rate=rate,
        augment=augment,
        report=report,
    )
    save_file(network.state_dict(), folder / "model.safetensors")
