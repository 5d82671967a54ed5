"""Output error on inputs that calibration did not see: data-aware against plain, equal ranks.

For each layer of the networks in `benchmarks.networks`. The second moments come from 512 training
images; errors are measured on the held-out images.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.networks import Trained, ranks_for, usable_methods
from benchmarks.record import Target
from compress.calibration import moments
from compress.equivalent import OutputError, dense_weight

CALIBRATION = 512
HELD_OUT = 512


def activation_rows(networks: Iterable[Trained], shares: Sequence[float]) -> list[dict[str, Any]]:
    """A row for each layer, method and share of parameters."""
    return [row for trained in networks for row in _rows(trained, shares)]


def activation_targets(rows: Sequence[dict[str, Any]]) -> list[Target]:
    """Lower in every case."""
    higher = sum(row["data_aware"] >= row["plain"] for row in rows if row["kind"] == "activations")
    return [Target("cases in which data-aware is not lower", "<=", 0, float(higher))]


def _rows(trained: Trained, shares: Sequence[float]) -> list[dict[str, Any]]:
    seen, unseen = (
        moments(trained.network, images.split(64), trained.layers)
        for images in (trained.training[:CALIBRATION], trained.held_out[:HELD_OUT])
    )
    rows = []
    for name, shape in trained.layers.items():
        weight = trained.weight(name)
        outputs = OutputError(weight, unseen[name].second)
        for method in usable_methods(shape):
            decompositions = {
                "plain": method.decompose(shape, weight, None),
                "data_aware": method.decompose(shape, weight, seen[name].metric),
            }
            for share in shares:
                ranks = ranks_for(method, shape, share)
                stages = method.stages(shape, ranks)
                row: dict[str, Any] = {
                    "kind": "activations",
                    "network": trained.name,
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
