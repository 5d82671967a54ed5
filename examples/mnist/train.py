"""Train `song_mnist` on MNIST: `python -m examples.mnist.train`.

The network is that of Song et al. 2021: 5x5 convolutions 1 -> 32 -> 64, then 512 and 10 units.
"""

from functools import partial
from pathlib import Path

import torch

from examples.augmentation import jitter
from examples.training import main
from search.data.builtin import builtin
from service.settings import Settings

if __name__ == "__main__":
    mnist = builtin("mnist", Settings.from_environment().data_root)
    assert mnist.train_labels is not None
    assert mnist.labels is not None
    main(
        "song_mnist",
        (mnist.batch(torch.arange(mnist.train_count), train=True), mnist.train_labels),
        (mnist.batch(torch.arange(len(mnist))), mnist.labels),
        Path(__file__).parent,
        epochs=8,
        batch=100,
        rate=0.05,
        augment=partial(jitter, shift=0.06, turn=0.15),
    )
