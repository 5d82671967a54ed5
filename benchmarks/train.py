"""Train the networks of `benchmarks.cifar` on CIFAR-10: `python -m benchmarks.train resnet20`.

SGD with a one-cycle rate, mirrored crops of images padded by four pixels. The weights go to
`benchmarks/weights`; settings are of a size for a few hours of one CPU core, stated in the file's
metadata with the held-out accuracy. On a GPU take more epochs.
"""

import argparse
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from benchmarks.cifar import NETWORKS
from benchmarks.record import ROOT
from examples.augmentation import crop_and_flip
from examples.training import accuracy, train
from search.data.builtin import builtin
from service.settings import Settings

WEIGHTS = ROOT / "benchmarks" / "weights"
PADDING = 4
BATCH = 128


def main() -> None:
    """Train the networks of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__)
    parser.add_argument("networks", nargs="+", choices=NETWORKS)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--rate", type=float, default=0.2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder of the weights")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cifar = builtin("cifar10", Settings.from_environment().data_root)
    assert cifar.labels is not None
    assert cifar.train_labels is not None
    images = cifar.batch(torch.arange(cifar.train_count), train=True)
    padded = F.pad(images, (PADDING,) * 4)
    held_out = cifar.batch(torch.arange(len(cifar))), cifar.labels
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.networks:
        torch.manual_seed(0)
        network = NETWORKS[name]().to(memory_format=torch.channels_last)

        def report(epoch: int, network: nn.Module, name: str = name) -> None:
            share = accuracy(network, *held_out)
            metadata = {"epochs": str(epoch + 1), "held_out_accuracy": f"{share:.4f}"}
            print(name, metadata, flush=True)
            state = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
            save_file(state, arguments.out / f"{name}.safetensors", metadata)

        train(
            network,
            (padded, cifar.train_labels),
            epochs=arguments.epochs,
            batch=BATCH,
            rate=arguments.rate,
            augment=partial(crop_and_flip, side=images.shape[-1]),
            report=report,
        )


if __name__ == "__main__":
    main()
