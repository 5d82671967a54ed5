"""Train `digits_cnn` on scikit-learn's handwritten digits: `python -m examples.digits.train`."""

from functools import partial
from pathlib import Path

import torch

from examples.augmentation import jitter
from examples.training import main
from search.data.builtin import builtin

if __name__ == "__main__":
    digits = builtin("digits", Path())
    assert digits.train_labels is not None
    assert digits.labels is not None
    main(
        "digits_cnn",
        (digits.batch(torch.arange(digits.train_count), train=True), digits.train_labels),
        (digits.batch(torch.arange(len(digits))), digits.labels),
        Path(__file__).parent,
        epochs=40,
        batch=50,
        rate=0.05,
        augment=partial(jitter, shift=0.08, turn=0.2),
    )
