"""Trained networks with the images that they are measured on."""

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
from search.data.arrays import Arrays
from search.data.builtin import builtin


@dataclass(frozen=True, slots=True)
class Case:
    """A network by name, and the data by name."""

    name: str
    """In the name of the record."""
    network: str
    data: str

    @property
    def weights(self) -> Path:
        """The file; not there before `benchmarks.train` has written it."""
        if self.network in CIFAR:
            return WEIGHTS / f"{self.network}.safetensors"
        return ROOT / "examples" / self.data / "model.safetensors"

    def load(self) -> nn.Module:
        """The network in eval mode."""
        network = (
            CIFAR[self.network]()
            if self.network in CIFAR
            else build_sequential(EXAMPLES[self.network])
        )
        network.load_state_dict(load_file(self.weights))
        return network.eval()

    def arrays(self, data_root: Path, images: int | None = None) -> Arrays:
        """The data, of which `images` are measured on; None for all.

        Args:
            data_root: the folder of the larger sets.
            images: equally spaced, since they may be stored class by class.

        Raises:
            DataError: the data are not there.
        """
        declared = None if self.network in CIFAR else DECLARED.get(self.data)
        arrays = builtin(self.data, data_root, declared)
        if images is None or arrays.labels is None:
            return arrays
        chosen = torch.arange(images) * len(arrays) // images
        inputs = {name: stored[chosen] for name, stored in arrays.inputs.items()}
        return replace(arrays, inputs=inputs, labels=arrays.labels[chosen])


DIGITS = Case("digits", "digits_cnn", "digits")
MNIST = Case("mnist", "song_mnist", "mnist")
CIFAR10 = Case("cifar", "song_cifar", "cifar10")
RESNET = Case("resnet", "resnet20", "cifar10")
VGG = Case("vgg", "vgg8", "cifar10")
