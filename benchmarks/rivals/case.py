"""The networks that rivals meet on, each with its data and its promise."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from benchmarks.cifar import NETWORKS as CIFAR
from benchmarks.networks import DECLARED
from benchmarks.record import ROOT
from benchmarks.train import WEIGHTS
from compress.catalog import EXAMPLES
from compress.load import build_sequential
from search.analysis import analyse
from search.config import Budget, Objective, Runtime, SearchConfig
from search.data.arrays import Arrays
from search.data.builtin import builtin
from search.subject import Subject
from search.table import ChoiceTable

REPAIR_IMAGES = 64  # a quarter of a job's: repair is most of an evaluation, the same for all


@dataclass(frozen=True, slots=True)
class Case:
    """A trained network, and the points of top-1 accuracy that it may lose."""

    name: str
    """Of the record: rivals-NAME."""
    network: str
    data: str
    max_loss: float
    images: int | None = None
    """So many of the images that are measured on; None for all."""

    @property
    def weights(self) -> Path:
        """The file; not there before `benchmarks.train` has written it."""
        if self.network in CIFAR:
            return WEIGHTS / f"{self.network}.safetensors"
        return ROOT / "examples" / self.data / "model.safetensors"

    def prepare(
        self, data_root: Path, runtime: Runtime, known: Path
    ) -> tuple[Subject, ChoiceTable]:
        """The network ready to be searched, and its choice table.

        Args:
            data_root: the folder of the larger sets.
            runtime: that is raced in.
            known: the table of an earlier run, written here where there is none.

        Raises:
            DataError: the data are not there.
        """
        budget = Budget(max_loss=self.max_loss, unit="points", confidence=None)
        config = SearchConfig(budget=budget, objective=Objective(device="cpu", runtime=runtime))
        subject = Subject.prepare(self._network(), self._arrays(data_root), config, {})
        if known.exists():
            table = ChoiceTable.from_json(known.read_text())
        else:
            table = analyse(subject, config, lambda _fraction, _sentence: None)
            known.parent.mkdir(parents=True, exist_ok=True)
            known.write_text(table.to_json())
        subject.calibration = [subject.calibration[0][:REPAIR_IMAGES]]
        return subject, table

    def _network(self) -> nn.Module:
        network = (
            CIFAR[self.network]()
            if self.network in CIFAR
            else build_sequential(EXAMPLES[self.network])
        )
        network.load_state_dict(load_file(self.weights))
        return network.eval()

    def _arrays(self, data_root: Path) -> Arrays:
        declared = None if self.network in CIFAR else DECLARED.get(self.data)
        arrays = builtin(self.data, data_root, declared)
        if self.images is None or arrays.labels is None:
            return arrays
        # Equally spaced: they may be stored class by class.
        chosen = torch.arange(self.images) * len(arrays) // self.images
        inputs = {name: stored[chosen] for name, stored in arrays.inputs.items()}
        return replace(arrays, inputs=inputs, labels=arrays.labels[chosen])


# Budgets so tight that the smallest choices together do not keep them.
CASES = (
    Case("digits", "digits_cnn", "digits", 0.5),
    Case("mnist", "song_mnist", "mnist", 0.1),
    Case("cifar", "song_cifar", "cifar10", 1.0, images=2500),
    Case("resnet", "resnet20", "cifar10", 1.0, images=2500),
    Case("vgg", "vgg8", "cifar10", 1.0, images=2500),
)
