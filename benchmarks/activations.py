"""Output error on inputs that calibration did not see: data-aware against plain, equal ranks.

For each layer of the digits network, and of the MNIST network where its data are there. The
second moments come from 512 training images; errors are measured on the held-out images.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.record import ROOT, Target
from compress.calibration import moments
from compress.catalog import EXAMPLES
from compress.equivalent import OutputError, dense_weight
from compress.layers import inspect
from compress.load import build_sequential
from compress.methods.method import Method, Ranks
from compress.methods.registry import METHODS
from compress.shape import LayerShape, stage_parameters
from search.data.builtin import builtin
from search.errors import DataError

NETWORKS = {"digits": "digits_cnn", "mnist": "song_mnist"}
CALIBRATION = 512
HELD_OUT = 512
STEP = 4  # of the ranks


def activation_rows(data_root: Path, shares: Sequence[float]) -> list[dict[str, Any]]:
    """A row for each layer, method and share of parameters."""
    return [row for data in NETWORKS for row in _rows(data, data_root, shares)]


def activation_targets(rows: Sequence[dict[str, Any]]) -> list[Target]:
    """Lower in every case."""
    higher = sum(row["data_aware"] >= row["plain"] for row in rows)
    return [Target("cases in which data-aware is not lower", "<=", 0, float(higher))]


def ranks_for(method: Method, shape: LayerShape, share: float) -> Ranks:
    """Those whose parameters are nearest to `share` of the layer's, in steps of `STEP`."""
    return min(
        method.lattice(shape, STEP),
        key=lambda ranks: abs(
            stage_parameters(method.layout(shape, ranks)) / shape.parameters - share
        ),
    )


def _rows(data: str, data_root: Path, shares: Sequence[float]) -> list[dict[str, Any]]:
    try:
        arrays = builtin(data, data_root)
    except DataError as error:
        print(f"{data} left out: {error}", flush=True)
        return []
    network = build_sequential(EXAMPLES[NETWORKS[data]])
    network.load_state_dict(load_file(ROOT / "examples" / data / "model.safetensors"))
    network.eval()
    layers = {layer.name: layer.shape for layer in inspect(network) if layer.shape is not None}
    seen, unseen = (
        moments(network, arrays.batch(torch.arange(count), train=train).split(64), layers)
        for count, train in ((CALIBRATION, True), (HELD_OUT, False))
    )
    rows = []
    for name, shape in layers.items():
        weight = network.get_submodule(name).get_parameter("weight").detach().double()
        outputs = OutputError(weight, unseen[name].second)
        for method in METHODS.values():
            if method.obstacle(shape) or not any(method.lattice(shape, STEP)):
                continue
            decompositions = {
                "plain": method.decompose(shape, weight, None),
                "data_aware": method.decompose(shape, weight, seen[name].second),
            }
            for share in shares:
                ranks = ranks_for(method, shape, share)
                stages = method.stages(shape, ranks)
                row: dict[str, Any] = {
                    "kind": "activations",
                    "network": NETWORKS[data],
                    "layer": name,
                    "method": method.name,
                    "parameter_share": share,
                    "ranks": ranks,
                }
                for norm, decomposition in decompositions.items():
                    found = dense_weight(shape, stages, decomposition.factors(ranks))
                    row[norm] = float(f"{outputs.of(found):.4g}")
                rows.append(row)
                print(*(f"{key}={value}" for key, value in row.items()), flush=True)
    return rows
