"""The trained networks of the examples, with images that they were and were not trained on."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.record import ROOT
from compress.catalog import EXAMPLES
from compress.layers import inspect
from compress.load import build_sequential
from compress.memory import peak_bytes
from compress.methods.method import Method, Ranks
from compress.methods.registry import METHODS
from compress.shape import LayerShape, stage_parameters
from search.data.builtin import builtin
from search.data.declaration import Declaration
from search.errors import DataError

NETWORKS = {"digits": "digits_cnn", "mnist": "song_mnist", "cifar10": "song_cifar"}
# What a network sees of its images.
DECLARED = {"cifar10": Declaration.read({"transforms": [{"center_crop": 24}]})}
IMAGES = 1024  # of each kind
STEP = 4  # of the ranks
MEMORY = 2**30  # bytes that a fit may take: one that takes more takes minutes too


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """One network, in eval mode and without gradients, and its inputs."""

    name: str
    network: nn.Sequential
    layers: dict[str, LayerShape]  # that can be factorised
    training: Tensor  # (N, C, H, W)
    held_out: Tensor  # (N, C, H, W)

    def weight(self, name: str) -> Tensor:
        """Of a layer, in float64."""
        return self.network.get_submodule(name).get_parameter("weight").double()


def trained_networks(data_root: Path) -> Iterator[Trained]:
    """Each network whose weights and data are there; of the others it is told why not."""
    for data, name in NETWORKS.items():
        weights = ROOT / "examples" / data / "model.safetensors"
        if name not in EXAMPLES or not weights.exists():
            print(f"{data} left out: no weights of {name}", flush=True)
            continue
        try:
            arrays = builtin(data, data_root, DECLARED.get(data))
        except DataError as error:
            print(f"{data} left out: {error}", flush=True)
            continue
        network = build_sequential(EXAMPLES[name])
        network.load_state_dict(load_file(weights))
        network.eval().requires_grad_(False)
        training, held_out = (
            arrays.batch(torch.arange(min(IMAGES, count)), train=train)
            for count, train in ((arrays.train_count, True), (len(arrays), False))
        )
        layers = {layer.name: layer.shape for layer in inspect(network) if layer.shape is not None}
        yield Trained(name, network, layers, training, held_out)


def usable_methods(shape: LayerShape) -> list[Method]:
    """Those that can represent a layer, have ranks for it, and the memory for a fit to data."""
    return [
        method
        for method in METHODS.values()
        if method.obstacle(shape) is None
        and any(method.lattice(shape, STEP))
        and all(
            peak_bytes(shape, method.name, ranks, data_aware=True) <= MEMORY
            for ranks in method.lattice(shape, STEP)
        )
    ]


def ranks_for(method: Method, shape: LayerShape, share: float) -> Ranks:
    """Those whose parameters are nearest to `share` of the layer's, in steps of `STEP`."""
    return min(
        method.lattice(shape, STEP),
        key=lambda ranks: abs(
            stage_parameters(method.layout(shape, ranks)) / shape.parameters - share
        ),
    )
