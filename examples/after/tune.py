"""A result trained further: `python -m examples.after.tune RESULT ARRAYS [EPOCHS]`.

RESULT is an unpacked result; ARRAYS is a safetensors file with float32 `images` (N, C, H, W) as
the network takes them and int64 `labels` (N,). The factorised layers are plain layers, so nothing
is special about training them. The weights are written beside the others as `tuned.safetensors`;
they have the same names.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from compress.load import load, read_safetensors

BATCH = 50


def tune_(
    model: nn.Module, images: Tensor, labels: Tensor, *, epochs: int = 3, rate: float = 1e-3
) -> float:
    """Train with cross-entropy and Adam; the network ends in eval mode.

    Returns:
        The mean loss over the last epoch.
    """
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), rate)
    generator = torch.Generator().manual_seed(0)
    losses: list[float] = []
    for _ in range(epochs):
        losses.clear()
        for chosen in torch.randperm(len(images), generator=generator).split(BATCH):
            loss = F.cross_entropy(model(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    model.eval()
    return sum(losses) / len(losses)


if __name__ == "__main__":
    folder, arrays_path = map(Path, sys.argv[1:3])
    arrays, network = read_safetensors(arrays_path), load(folder)
    spent = tune_(network, arrays["images"], arrays["labels"], epochs=int((*sys.argv, 3)[3]))
    save_file(network.state_dict(), folder / "tuned.safetensors")
    print(f"cross-entropy {spent:.4f}")
