"""What a candidate is trained on: inputs, labels, and what the dense network answers to them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.calibration import evaluating
from search.config import Augmentation, ConfigError, Recovery
from search.data.arrays import Arrays, as_stored
from search.data.augmenter import Augmenter
from search.data.declaration import IMAGES

BATCH_SAMPLES = 64
BATCH_VALUES = 1 << 22  # inputs of a batch together: the activations are kept for the way back
MOST_SAMPLES = 1 << 16
MOST_ANSWERS = 1 << 26  # values of dense answers that are kept, 256 MB
UNVARIED = Augmentation()
LEFT_OUT_SHARE = 0.1
LEFT_OUT_SAMPLES = 1024  # at most


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """Some samples, on the device."""

    inputs: Tensor  # (n, ...)
    answers: Tensor  # (n, ...) of the dense network
    labels: Tensor | None  # (n,) int64


def check_recovery(config: Recovery, arrays: Arrays) -> None:
    """Refuse a training that the data do not allow.

    Raises:
        ConfigError: the method is finetune, and the samples to train on have no labels; or
            pictures are to be varied, and there are none, or none as large.
    """
    if config.augment and IMAGES not in arrays.inputs:
        raise ConfigError(
            f"augment came with data of {arrays.told}; it varies an input named {IMAGES}: leave "
            "it out"
        )
    if config.augment and config.augment.shift >= min(arrays.input_shapes[IMAGES][1:]):
        raise ConfigError(
            f"augment with a shift of {config.augment.shift} pixels came with {arrays.told}: "
            "fewer pixels than a side has were wanted"
        )
    trains = arrays.train_inputs is not None
    labels = arrays.train_labels if trains else arrays.labels
    if config.method == "finetune" and labels is None:
        name = "train_labels" if trains else "labels"
        raise ConfigError(
            f"recovery finetune came with data without {name}: add them, or choose recovery "
            "distil, which needs none"
        )


class Material:
    """Samples to train on and some left out to judge by, both the same for every candidate.

    The dense network answers each sample once, when it is first met; but one that is varied
    whenever it is met.
    """

    def __init__(
        self,
        arrays: Arrays,
        index: Tensor,
        dense: nn.Module,
        device: torch.device,
        *,
        train: bool,
        augment: Augmentation = UNVARIED,
    ) -> None:
        """Choose samples; nothing is read but the first.

        Args:
            arrays: the data.
            index: (n,) of the samples in the order of preference; two at least.
            dense: the network before factorisation, in eval mode on the device.
            device: where candidates are trained.
            train: whether they are training samples.
            augment: how those to train on are varied; those left out never are.
        """
        self._arrays = arrays
        self._augment = augment
        self._dense = dense
        self.device = device
        self._train = train
        self._labels = arrays.train_labels if train else arrays.labels
        self.is_training = train
        first = self._asked(arrays.batch(index[:1], device, train=train)).cpu()
        self._index = index[: min(MOST_SAMPLES, max(2, MOST_ANSWERS // first.numel()))]
        self._answers = first.new_empty(len(self._index), *first.shape[1:])
        self._known = torch.zeros(len(self._index), dtype=torch.bool)
        self._left_out = min(LEFT_OUT_SAMPLES, max(1, round(LEFT_OUT_SHARE * len(self._index))))
        size = min(BATCH_SAMPLES, BATCH_VALUES // arrays.input_values, len(self))
        self._size = max(2, size)  # of one sample alone a batch norm has no variance

    def __len__(self) -> int:
        """Samples to train on."""
        return len(self._index) - self._left_out

    @property
    def left_out(self) -> int:
        """Samples to judge by."""
        return self._left_out

    @property
    def steps(self) -> int:
        """Batches of an epoch; what is left of it, less than half a batch, waits for the next."""
        return max(1, round(len(self) / self._size))

    def examples(self, generator: torch.Generator) -> Iterator[Example]:
        """Epoch after epoch without end, each in a random order, and varied as it is drawn."""
        augmenter = Augmenter(self._augment, generator) if self._augment else None
        while True:
            order = self._left_out + torch.randperm(len(self), generator=generator)
            for chosen in torch.split(order, self._size)[: self.steps]:
                yield self._example(chosen, augmenter)

    def judging(self) -> Iterator[Example]:
        """The samples left out, in order."""
        for chosen in torch.split(torch.arange(self._left_out), self._size):
            yield self._example(chosen)

    def _example(self, chosen: Tensor, augmenter: Augmenter | None = None) -> Example:
        index = self._index[chosen]
        read = as_stored if augmenter is None else augmenter.read
        inputs = self._arrays.batch(index, self.device, train=self._train, read=read)
        if inputs.ndim == 4:  # images, as convolutions learn faster
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        answers = self._asked(inputs) if augmenter else self._known_or_asked(chosen, inputs)
        labels = None if self._labels is None else self._labels[index].to(self.device)
        return Example(inputs, answers, labels)

    def _known_or_asked(self, chosen: Tensor, inputs: Tensor) -> Tensor:
        if not self._known[chosen].all():
            self._answers[chosen] = self._asked(inputs).to(self._answers)
            self._known[chosen] = True
        return self._answers[chosen].to(self.device)

    def _asked(self, inputs: Tensor) -> Tensor:
        with evaluating(self._dense):
            answers: Tensor = self._dense(inputs)
        return answers
