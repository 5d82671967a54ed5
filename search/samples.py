"""One split of the data as a network meets it, and what each sample says of a network."""

from collections.abc import Iterator
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.budget import PerSample
from search.config import UNLABELLED, Metric
from search.data.arrays import Arrays
from search.errors import DataError

BATCH_SAMPLES = 256
BATCH_VALUES = 1 << 22  # inputs of a batch together; the activations are some dozen times as many


class Samples:
    """Inputs, read and normalised batch by batch on the device, with labels and dense answers.

    Batches are short for large inputs, so that the activations of a whole network fit.
    """

    def __init__(
        self,
        arrays: Arrays,
        index: Tensor,
        dense: nn.Module,
        device: torch.device,
    ) -> None:
        """Choose the samples `index` (N,) of the arrays; nothing is read yet."""
        self._arrays = arrays
        self._index = index
        self._labels = None if arrays.labels is None else arrays.labels[index]
        self._dense = dense
        self._device = device
        self._size = max(1, min(BATCH_SAMPLES, BATCH_VALUES // arrays.input_values))

    def __len__(self) -> int:
        return len(self._index)

    def inputs(self, start: int, stop: int) -> Tensor:
        """What a network is given for some samples, (stop - start, ...) on the device."""
        return self._arrays.batch(self._index[start:stop], self._device)

    def answers(self, model: nn.Module) -> Iterator[Tensor]:
        """What `model` answers, batch by batch in a fixed order, (n, ...) on the CPU."""
        for start in range(0, len(self), self._size):
            with torch.inference_mode():
                answer = model(self.inputs(start, start + self._size))
            if not isinstance(answer, Tensor):
                raise DataError(f"the network answers {type(answer).__name__}, a tensor was wanted")
            yield answer.float().cpu()

    @cached_property
    def dense_answers(self) -> Tensor:
        """The dense network's answers to all samples, (N, ...).

        Raises:
            DataError: the network cannot take these inputs, or its answers are not finite.
        """
        try:
            answers = torch.cat(list(self.answers(self._dense)))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            if isinstance(error, DataError):  # of a picture that cannot be read
                raise
            raise DataError(f"the network refuses {self._arrays.told}: {error}") from error
        if not answers.isfinite().all():
            raise DataError("the network's answers to these inputs are not finite")
        return answers

    def dense_values(self, metric: Metric) -> PerSample:
        """The metric of each sample for the dense network."""
        return self.values(metric, self.dense_answers)

    def values(self, metric: Metric, answers: Tensor, start: int = 0) -> PerSample:
        """The metric of each sample from number `start` on, float64.

        top1, top5 and agreement give 0 or 1, loss the cross-entropy, mse the mean squared
        difference from the dense network's answer.

        Args:
            metric: the budget's.
            answers: of the network in question, (n, classes), or (n, ...) for mse.
            start: the number of the sample that the first answer belongs to.
        """
        dense = self.dense_answers[start : start + len(answers)]
        if metric == "mse":
            return _numpy((answers - dense).square().flatten(1).mean(1))
        if metric == "agreement":
            return _numpy(answers.argmax(1) == dense.argmax(1))
        assert self._labels is not None  # else the splits would have been refused
        labels = self._labels[start : start + len(answers)]
        if metric == "loss":
            return _numpy(F.cross_entropy(answers, labels, reduction="none"))
        best = answers.topk(1 if metric == "top1" else min(5, answers.shape[1]), dim=1).indices
        return _numpy((best == labels[:, None]).any(1))


def check_answers(metric: Metric, answers: Tensor, labels: Tensor | None) -> None:
    """Refuse answers that the metric cannot be computed from.

    Raises:
        DataError: they have no classes, or fewer than the labels say.
    """
    shape = tuple(answers.shape)
    if metric == "mse":
        return
    if len(shape) != 2 or shape[1] < 2:
        raise DataError(
            f"answers of shape {shape} came, (N, classes) was wanted for {metric}; "
            "the metric mse takes any shape"
        )
    if metric not in UNLABELLED and labels is not None and int(labels.max()) >= shape[1]:
        raise DataError(
            f"label {int(labels.max())} came, the network has {shape[1]} outputs: "
            f"labels from 0 to {shape[1] - 1} were wanted"
        )


def _numpy(values: Tensor) -> PerSample:
    return values.double().numpy()
