"""Train `digits_cnn` on scikit-learn's handwritten digits: `python -m examples.digits.train`."""

from functools import partial
from pathlib import Path

from examples.augmentation import jitter
from examples.training import main
from search.data import builtin

if __name__ == "__main__":
    digits = builtin("digits", Path())
    assert digits.train_images is not None
    assert digits.train_labels is not None
    assert digits.labels is not None
    main(
        "digits_cnn",
        (digits.train_images / 255, digits.train_labels),
        (digits.images / 255, digits.labels),
        Path(__file__).parent,
        epochs=40,
        batch=50,
        rate=0.05,
        augment=partial(jitter, shift=0.08, turn=0.2),
    )
