"""tednet's LSTMs raced against the same networks of ours, and against KCP of as many parameters."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.recurrent.cost import SHORT_ROUNDS, Race, Row, backward, forward
from benchmarks.recurrent.matching import matched
from benchmarks.recurrent.tednet_layers import GATES, Layer, difference, layers
from benchmarks.recurrent.timing import Call, raced, ratio, spread
from benchmarks.recurrent.training import projection_of
from benchmarks.recurrent.ucf11 import BATCH, MODES, STEPS
from compress.recurrent.layer import LSTM
from compress.recurrent.modes import Modes

# Modes of KCP: of UCF11 as published, and of tednet's own benchmark.
KCP_MODES = {"UCF11": MODES, "its own": Modes((64, 32), (GATES * 32, 64))}


def tednet_races(device: torch.device) -> Iterator[Race]:
    """One for each of its layers, dropout off."""
    for layer in layers():
        yield f"tednet {layer.format} {layer.setting}", partial(_raced, layer, device)


def _raced(layer: Layer, device: torch.device) -> list[Row]:
    theirs, ours = (each.to(device) for each in layer.both())
    x = torch.randn(STEPS, BATCH, layer.input_size, device=device)
    state = (torch.zeros(BATCH, layer.hidden_size, device=device),) * 2
    networks: dict[str, nn.Module] = {"tednet": _Started(theirs, state), "ours": ours}
    with torch.inference_mode():
        found = difference(networks["tednet"](x)[0], ours(x)[0])
    networks["kcp"] = _kcp(layer).to(device)
    row: Row = {
        "kind": "tednet",
        "format": layer.format,
        "setting": layer.setting,
        "parameters": layer.network.parameters,
        "difference": found,
    }
    products: dict[str, nn.Module] = {
        "tednet": _StepByStep(theirs.get_submodule("cell.weight_ih")),
        "ours": ours.get_submodule("weight_ih_l0"),
        "kcp": networks["kcp"].get_submodule("weight_ih_l0"),
    }
    for what, step, modules in (
        ("product", forward, products),
        ("forward", forward, networks),
        ("training", backward, networks),
    ):
        calls: dict[str, Call] = {name: step(one, x) for name, one in modules.items()}
        times = raced(calls, device, SHORT_ROUNDS)
        row[f"{what}_ms"] = {name: spread(each) for name, each in times.items()}
        for name in ("ours", "kcp"):
            row[f"{what}_faster_{name}"] = ratio(times["tednet"], times[name])
    return [row]


class _Started(nn.Module):
    """tednet's layer with its first state, which it does not make itself."""

    def __init__(self, layer: nn.Module, state: tuple[torch.Tensor, torch.Tensor]) -> None:
        super().__init__()
        self.layer, self._state = layer, state

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(x, self._state)


class _StepByStep(nn.Module):
    """tednet's product of the inputs, as its layer calls it."""

    def __init__(self, product: nn.Module) -> None:
        super().__init__()
        self.product = product

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.product(inputs) for inputs in x.unbind(0)])


def _kcp(layer: Layer) -> LSTM:
    """Of no more parameters than the layer."""
    match = matched("kcp", KCP_MODES[layer.setting], layer.network.parameters)
    if match is None:
        raise ValueError(f"no KCP has {layer.network.parameters} parameters")
    weights = {"weight_ih_l0": projection_of(match)}
    return LSTM(layer.input_size, layer.hidden_size, weights=weights)
