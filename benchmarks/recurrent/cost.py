"""What the formats cost at the sizes of UCF11, and which order of KCP's factors is fastest."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.recurrent.matching import Measure, least_macs, matched, parameters
from benchmarks.recurrent.timing import Call, peak_bytes, raced, ratio, spread
from benchmarks.recurrent.training import projection_of
from benchmarks.recurrent.ucf11 import BATCH, HIDDEN_SIZE, MODES, MORE_STEPS, STEPS
from compress.recurrent.contraction import Order, best_order, copied, macs
from compress.recurrent.formats import FORMATS, network_of
from compress.recurrent.kcp import contract_then_expand, mode_by_mode
from compress.recurrent.layer import LSTM
from compress.recurrent.modes import Modes
from compress.recurrent.network import TensorNetwork
from compress.recurrent.projection import Projection

ROUNDS = 15
FEWER_ROUNDS = 5  # where a round takes half a minute
SHORT_ROUNDS = 11
# Of BT-LSTM; of svd of rank 1, the least it can be; and a 64th of the dense MACs.
FEW, MANY, MACS = 3_392, 58_624, 921_600
# Terms and rank of KCP.
TERMS_AND_RANKS = ((1, 1), (2, 2), (4, 2), (4, 4), (1, 8), (2, 8), (9, 4), (16, 1))
NEAREST = {order: Modes.of(MODES.in_features, MODES.out_features, order) for order in (2, 3, 4)}

Row = dict[str, Any]
Race = tuple[str, Callable[[], list[Row]]]
"""A name, and what runs it."""
Step = Callable[[nn.Module, Tensor], Call]


@dataclass(frozen=True, slots=True)
class Level:
    """What all formats of one race have in common."""

    budget: str
    most: int
    measure: Measure
    modes_name: str
    modes: Modes
    steps: int = STEPS
    rounds: int = ROUNDS


LEVELS = (
    Level(f"{FEW:,} parameters", FEW, parameters, "as published", MODES),
    Level(f"{FEW:,} parameters", FEW, parameters, "three", NEAREST[3]),
    Level(f"{FEW:,} parameters", FEW, parameters, "two", NEAREST[2]),
    Level(f"{FEW:,} parameters", FEW, parameters, "as published", MODES, MORE_STEPS),
    Level(f"{MANY:,} parameters", MANY, parameters, "as published", MODES, rounds=FEWER_ROUNDS),
    Level(f"{MACS:,} MACs", MACS, least_macs, "as published", MODES),
)


def format_races(device: torch.device) -> Iterator[Race]:
    """All formats at each level."""
    for level in LEVELS:
        key = f"{level.budget} {level.modes_name} {level.steps}"
        yield key, partial(_raced_at, level, device)


def order_races(device: torch.device) -> Iterator[Race]:
    """The order that is found beside KCP's two algorithms, of one product with all frames."""
    for modes in (MODES, *NEAREST.values()):
        for terms, rank in TERMS_AND_RANKS:
            if rank > FORMATS["kcp"].limits(modes)[1]:
                continue
            network = network_of("kcp", modes, (terms, rank))
            orders = {
                "found": best_order(network),
                "mode by mode": mode_by_mode(modes, rank),
                "contract, then expand": contract_then_expand(modes),
            }
            key = f"orders {modes.inputs} {terms} {rank}"
            yield key, partial(_order_rows, network, modes, (terms, rank), orders, device)


def forward(module: nn.Module, x: Tensor) -> Call:
    """Without gradients."""

    def call() -> object:
        with torch.inference_mode():
            return module(x)

    return call


def backward(module: nn.Module, x: Tensor) -> Call:
    """Forward, and the gradients of all parameters by the sum of the outputs."""

    def call() -> object:
        outputs = module(x)
        outputs = outputs if isinstance(outputs, Tensor) else outputs[0]
        return torch.autograd.grad(outputs.sum(), list(module.parameters()))

    return call


def _raced_at(level: Level, device: torch.device) -> list[Row]:
    """The rows of one race: dense, and those formats that fit the budget."""
    inputs = level.modes.in_features
    layers = {"dense": LSTM(inputs, HIDDEN_SIZE)}
    entries = inputs * level.modes.out_features
    sizes: dict[str, Row] = {"dense": {"ranks": None, "parameters": entries, "macs": entries}}
    for name in FORMATS:
        match = matched(name, level.modes, level.most, level.measure) if name != "dense" else None
        if match is not None:
            layers[name] = LSTM(inputs, HIDDEN_SIZE, weights={"weight_ih_l0": projection_of(match)})
            sizes[name] = {
                "ranks": match.ranks,
                "parameters": match.network.parameters,
                "macs": least_macs(match.network),
            }
    x = torch.randn(level.steps, BATCH, inputs, device=device)
    times = {}
    for what, step in (("forward", forward), ("training", backward)):
        calls = {name: step(layer.to(device), x) for name, layer in layers.items()}
        times[what] = raced(calls, device, level.rounds)
    rows = []
    for name, layer in layers.items():
        row = {
            "kind": "formats",
            "budget": level.budget,
            "modes": level.modes_name,
            "steps": level.steps,
            "rounds": level.rounds,
            "format": name,
            **sizes[name],
        }
        for what, each in times.items():
            row[f"{what}_ms"] = spread(each[name])
            row[f"{what}_to_dense"] = ratio(each[name], each["dense"])
        row["forward_bytes"] = peak_bytes(forward(layer, x), device)
        row["training_bytes"] = peak_bytes(backward(layer, x), device)
        rows.append(row)
    return rows


def _order_rows(
    network: TensorNetwork,
    modes: Modes,
    ranks: tuple[int, int],
    orders: Mapping[str, Order],
    device: torch.device,
) -> list[Row]:
    x = torch.randn(STEPS * BATCH, modes.in_features, device=device)
    held = {
        name: Projection(network.sizes, network.inputs, network.outputs, network.factors, order).to(
            device
        )
        for name, order in orders.items()
    }
    times = raced({name: forward(p, x) for name, p in held.items()}, device, SHORT_ROUNDS)
    row: Row = {
        "kind": "orders",
        "modes": modes.inputs,
        "terms": ranks[0],
        "rank": ranks[1],
        "parameters": network.parameters,
    }
    for name, order in orders.items():
        figures = {"macs": macs(network, order), "copied": copied(network, order)}
        row[name] = figures | {"ms": spread(times[name])}
    others = [name for name in orders if name != "found"]
    row["to_better"] = max(ratio(times["found"], times[name]) for name in others)
    return [row]
