"""Linear layers in 8 bits by torchao: `python -m examples.after.quantise_layers RESULT`.

torchao changes linear layers, a factorised layer's stages among them; convolutions stay as they
are. The weights are written beside the result as `model.int8.pt`.
"""

import sys
from pathlib import Path

import torch
from torch import nn
from torchao.quantization import Int8WeightOnlyConfig, quantize_

from compress.load import load


def quantise_(model: nn.Module) -> None:
    """Hold the weights of all linear layers as 8-bit integers, with a scale for each output."""
    quantize_(model, Int8WeightOnlyConfig())


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    network = load(folder)
    quantise_(network)
    torch.save(network.state_dict(), folder / "model.int8.pt")
    print(network)
