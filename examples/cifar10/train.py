"""Train `song_cifar` on CIFAR-10: `python -m examples.cifar10.train`.

The network is that of Song et al. 2021: 5x5 convolutions 3 -> 64 -> 64 on 24x24 crops, then 384,
192 and 10 units. It is measured on the middle of the held-out images: 78.79 % on CIFAR-10 (JPEG).
"""

from functools import partial
from pathlib import Path

import torch

from examples.augmentation import crop_and_flip
from examples.training import main
from search.data.builtin import builtin
from search.data.transformed import transformed
from search.data.transforms import CenterCrop
from service.settings import Settings

SIDE = 24  # of the crops

if __name__ == "__main__":
    cifar = builtin("cifar10", Settings.from_environment().data_root)
    assert cifar.train_labels is not None
    assert cifar.labels is not None
    main(
        "song_cifar",
        (cifar.batch(torch.arange(cifar.train_count), train=True), cifar.train_labels),
        (
            transformed(cifar.batch(torch.arange(len(cifar))), [CenterCrop((SIDE, SIDE))]),
            cifar.labels,
        ),
        Path(__file__).parent,
        epochs=18,
        batch=100,
        rate=0.05,
        augment=partial(crop_and_flip, side=SIDE),
    )
