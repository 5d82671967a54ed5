"""The keys of the package's EfficientNet-Lite0 as timm calls them.

Both follow Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks"
(ICML 2019), whose Lite variants leave out squeeze-and-excitation and take ReLU6. The package
numbers the 16 blocks through; timm counts them within their 7 stages. The first block has no
expansion, so its norms begin at another number.
"""

import re
from collections.abc import Mapping
from typing import Final

from torch import Tensor

BLOCKS: Final = (1, 2, 2, 3, 3, 4, 1)  # of each stage
PLACES: Final = [
    f"{stage}.{block}" for stage, blocks in enumerate(BLOCKS) for block in range(blocks)
]

AROUND: Final = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
FIRST: Final = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
OTHER: Final = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the package by the keys of timm's `tf_efficientnet_lite0`.

    Raises:
        KeyError: a key is none of the package's, or there are more blocks than 16.
    """
    return {_renamed(key): tensor for key, tensor in tensors.items()}


def _renamed(key: str) -> str:
    """`_blocks.1._bn0.weight` -> `blocks.1.0.bn1.weight`."""
    layer, _, kind = key.rpartition(".")
    if within := re.fullmatch(r"_blocks\.(\d+)\.(\w+)", layer):
        number, names = int(within[1]), FIRST if within[1] == "0" else OTHER
        if number < len(PLACES) and within[2] in names:
            return f"blocks.{PLACES[number]}.{names[within[2]]}.{kind}"
    elif layer in AROUND:
        return f"{AROUND[layer]}.{kind}"
    raise KeyError(f"{key!r} came, which EfficientNet-Lite0 of the package has none of")
