"""tednet's LSTMs, and the tensor networks that they contract.

tednet 0.1.3 (PyPI, April 2021, MIT licence) is the library of Pan, Wang and Xu, "TedNet: A Pytorch
Toolkit for Tensor Decomposition Networks", 2022; its repository was last changed in April 2022. It
runs unchanged with the torch of today. Each network here has the factors' values, so that both
sides compute the same.
"""

import contextlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.recurrent.ucf11 import MODES
from compress.recurrent.contraction import best_order
from compress.recurrent.formats import labels
from compress.recurrent.layer import LSTM
from compress.recurrent.network import TensorNetwork
from compress.recurrent.projection import Projection

GATES = 4


@dataclass(frozen=True, slots=True)
class Layer:
    """One of tednet's layers with its ranks, and the same network as ours."""

    format: str
    setting: str
    make: Callable[[], nn.Module]
    network: TensorNetwork
    factors: Callable[[nn.Module], dict[str, Tensor]]
    """Of its module of the inputs, by the names of the network."""

    @property
    def hidden_size(self) -> int:
        return self.network.size(self.network.outputs) // GATES

    @property
    def input_size(self) -> int:
        return self.network.size(self.network.inputs)

    def both(self) -> tuple[nn.Module, LSTM]:
        """tednet's, and ours with the same values."""
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its compression
            theirs: Any = self.make().eval()
        found = self.network
        projection = Projection(
            found.sizes, found.inputs, found.outputs, found.factors, best_order(found)
        )
        projection.load_state_dict(self.factors(theirs.cell.weight_ih))
        ours = LSTM(self.input_size, self.hidden_size, weights={"weight_ih_l0": projection})
        with torch.no_grad():
            ours.weight_hh_l0.copy_(theirs.cell.weight_hh)
            ours.bias_ih_l0.copy_(theirs.cell.weight_ih.bias)
            ours.bias_hh_l0.copy_(theirs.cell.bias_hh)
        return theirs, ours.eval()


def layers() -> list[Layer]:
    """At the ranks of its own benchmark, 2,048 features and states, and at the sizes of UCF11.

    There its formats have about the 3,392 parameters of BT-LSTM (Ye et al., 2018).
    """
    inputs, outputs = list(MODES.inputs), [4, *MODES.outputs[1:]]
    own, ucf11 = "its own", "UCF11"
    return [
        _ring([64, 32], [32, 64], [20] * 4, own),
        _blocks([64, 32], [32, 64], [5, 5], 2, own),
        _cp([64, 32], [32, 64], 400, own),
        _train([64, 32], [32, 64], [10], own),
        _tucker2([16, 16, 8], 2048, [10, 10], own),
        _ring(inputs, outputs, [6] * 8, ucf11),
        _blocks(inputs, outputs, [4] * 4, 2, ucf11),
        _cp(inputs, outputs, 36, ucf11),
        _train(inputs, outputs, [4] * 3, ucf11),
        _tucker2([160, 20, 18], 256, [2, 2], ucf11),
    ]


def _ring(inputs: Sequence[int], hidden: Sequence[int], ranks: Sequence[int], to: str) -> Layer:
    from tednet.tnn.tensor_ring import TRLSTM  # noqa: PLC0415 (an extra)

    names, modes = _modes(inputs, hidden)
    bonds = labels("r", len(ranks))
    cores = zip(bonds, names, (*bonds[1:], bonds[0]), strict=True)
    network = _network(
        modes | dict(zip(bonds, ranks, strict=True)),
        {f"node{i}": core for i, core in enumerate(cores)},
    )
    make = lambda: TRLSTM(list(inputs), list(hidden), list(ranks))  # noqa: E731
    return Layer("tensor_ring", to, make, network, _as_named)


def _train(inputs: Sequence[int], hidden: Sequence[int], ranks: Sequence[int], to: str) -> Layer:
    from tednet.tnn.tensor_train import TTLSTM  # noqa: PLC0415

    _, modes = _modes(inputs, hidden)
    bonds = labels("r", len(ranks))
    around = zip(((), *((b,) for b in bonds)), (*((b,) for b in bonds), ()), strict=True)
    cores = {f"node{i}": (f"n{i + 1}", f"m{i + 1}", *a, *b) for i, (a, b) in enumerate(around)}
    network = _network(modes | dict(zip(bonds, ranks, strict=True)), cores)
    make = lambda: TTLSTM(list(inputs), list(hidden), list(ranks))  # noqa: E731
    return Layer("tensor_train_matrix", to, make, network, _as_named)


def _cp(inputs: Sequence[int], hidden: Sequence[int], rank: int, to: str) -> Layer:
    from tednet.tnn.cp import CPLSTM  # noqa: PLC0415

    names, modes = _modes(inputs, hidden)
    network = _network(modes | {"r": rank}, {f"factor_{name}": (name, "r") for name in names})

    def factors(module: nn.Module) -> dict[str, Tensor]:
        held = _as_named(module)
        return {
            f"factor_{name}": torch.stack([held[f"node{j}_block{i}"] for i in range(rank)], 1)
            for j, name in enumerate(names)
        }

    make = lambda: CPLSTM(list(inputs), list(hidden), rank)  # noqa: E731
    return Layer("cp", to, make, network, factors)


def _blocks(
    inputs: Sequence[int], hidden: Sequence[int], ranks: Sequence[int], terms: int, to: str
) -> Layer:
    from tednet.tnn.bt_tucker import BTTLSTM  # noqa: PLC0415

    _, modes = _modes(inputs, hidden)
    bonds = labels("r", len(ranks))
    wired: dict[str, tuple[str, ...]] = {"core": ("k", *reversed(bonds))}  # as it reads its core
    wired |= {f"factor{i}": ("k", f"n{i + 1}", f"m{i + 1}", bond) for i, bond in enumerate(bonds)}
    network = _network(modes | dict(zip(bonds, ranks, strict=True)) | {"k": terms}, wired)

    def factors(module: nn.Module) -> dict[str, Tensor]:
        held = _as_named(module)
        return {
            name: torch.stack([held[f"{name}_block{k}"] for k in range(terms)]) for name in wired
        }

    make = lambda: BTTLSTM(list(inputs), list(hidden), list(ranks), terms)  # noqa: E731
    return Layer("block_term", to, make, network, factors)


def _tucker2(inputs: Sequence[int], hidden_size: int, ranks: Sequence[int], to: str) -> Layer:
    from tednet.tnn.tucker2 import TK2LSTM  # noqa: PLC0415

    sizes = dict(zip(labels("n", 3), inputs, strict=True)) | {"m1": GATES * hidden_size}
    network = _network(
        sizes | dict(zip(labels("r", 2), ranks, strict=True)),
        {"node0": ("n1", "r1"), "node_core": ("n2", "n3", "r1", "r2"), "node1": ("r2", "m1")},
    )
    make = lambda: TK2LSTM(list(inputs), hidden_size, list(ranks))  # noqa: E731
    return Layer("tucker2", to, make, network, _as_named)


def _modes(inputs: Sequence[int], hidden: Sequence[int]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Labels and sizes, the gates with the first mode of the outputs."""
    names = labels("n", len(inputs)) + labels("m", len(hidden))
    return names, dict(zip(names, (*inputs, GATES * hidden[0], *hidden[1:]), strict=True))


def _network(sizes: Mapping[str, int], factors: dict[str, tuple[str, ...]]) -> TensorNetwork:
    inputs, outputs = (tuple(name for name in sizes if name[0] == side) for side in "nm")
    return TensorNetwork(sizes, inputs, outputs, factors)


def _as_named(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in module.named_parameters() if name != "bias"}


def difference(theirs: Tensor, ours: Tensor) -> float:
    """The largest, relative to the largest output."""
    found = float((theirs - ours).abs().max() / theirs.abs().max())
    if not math.isfinite(found):
        raise ValueError("outputs that are not finite came")
    return found
