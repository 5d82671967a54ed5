"""The device that an order names."""

import torch

from search.config import ONLY_ON, Runtime
from search.errors import DeviceError


def find_device(name: str, runtime: Runtime = "eager") -> torch.device:
    """The device by its name in the objective.

    auto is cuda where there is one and the runtime can use it.

    Raises:
        DeviceError: cuda was asked for and there is none.
    """
    if name == "auto":
        name = ONLY_ON.get(runtime, "cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device cuda came, this machine has no usable GPU: choose cpu or auto")
    return torch.device(name)
