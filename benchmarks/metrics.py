"""What the parts of a metric are worth, each on images that calibration did not see.

`few samples`: output error by the second moment of 8, 16 and 64 images, as it is and shrunk.
`modes`: output error by moments of the modes, between the plain norm and the whole moment.
`sides`: how far the answers are from the dense network's (Kullback-Leibler divergence, nats) when
one layer alone is replaced, decomposed for its outputs and for the loss.
"""

import copy
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from benchmarks.networks import Trained, ranks_for, usable_methods
from benchmarks.record import Target
from compress.calibration import moments
from compress.equivalent import OutputError, dense_weight
from compress.gradients import gradient_moments
from compress.kernels import kernel_size
from compress.methods.method import Method
from compress.metric import Metric, ModeMoments
from compress.shape import LayerShape

SHARE = 1 / 4  # of a layer's parameters
FEW = (8, 16, 64)  # images
CALIBRATION = 512
HELD_OUT = 256
BACKWARD = 16

Row = dict[str, Any]


def metric_rows(networks: Iterable[Trained]) -> list[Row]:
    """Rows of all three kinds, for each layer and method."""
    return [
        row
        for trained in networks
        for rows in (_few_samples(trained), _modes(trained), _sides(trained))
        for row in rows
    ]


def metric_targets(rows: Sequence[Row]) -> list[Target]:
    """Each part is worth it in the middle of all cases, and never costs much."""

    def ratios(kind: str, one: str, other: str) -> list[float]:
        return [row[one] / row[other] for row in rows if row["kind"] == kind]

    shrunk = ratios("few samples", "shrunk", "unshrunk")
    modes, sides = ratios("modes", "modes", "plain"), ratios("sides", "loss", "output")
    return [
        Target("few samples, median shrunk over unshrunk", "<=", 1.0, _median(shrunk)),
        Target("few samples, most shrunk over unshrunk", "<=", 1.05, _most(shrunk)),
        Target("modes, median over plain", "<=", 0.9, _median(modes)),
        Target("for the loss over for the outputs, median", "<=", 0.9, _median(sides)),
    ]


def _few_samples(trained: Trained) -> list[Row]:
    unseen = moments(trained.network, trained.held_out[:CALIBRATION].split(64), trained.layers)
    rows = []
    for images in FEW:
        seen = moments(trained.network, [trained.training[:images]], trained.layers)
        for name, shape in trained.layers.items():
            forms = {"unshrunk": seen[name].second, "shrunk": seen[name].metric}
            outputs = OutputError(trained.weight(name), unseen[name].second)
            for method in usable_methods(shape):
                found = _found(trained, name, method, forms)
                errors = {form: _rounded(outputs.of(each)) for form, each in found.items()}
                rows.append(
                    _row("few samples", trained, name, method) | {"images": images} | errors
                )
                _tell(rows[-1])
    return rows


def _modes(trained: Trained) -> list[Row]:
    seen, unseen = (
        moments(trained.network, images[:CALIBRATION].split(64), trained.layers)
        for images in (trained.training, trained.held_out)
    )
    rows = []
    for name, shape in trained.layers.items():
        whole = seen[name].metric
        forms: dict[str, Metric | Tensor | None] = {
            "plain": None,
            "modes": Metric(ModeMoments.of(whole, kernel_size(shape)[1:])),
            "whole": whole,
        }
        outputs = OutputError(trained.weight(name), unseen[name].second)
        for method in usable_methods(shape):
            found = _found(trained, name, method, forms)
            errors = {form: _rounded(outputs.of(each)) for form, each in found.items()}
            rows.append(_row("modes", trained, name, method) | errors)
            _tell(rows[-1])
    return rows


def _sides(trained: Trained) -> list[Row]:
    calibration = trained.training[:CALIBRATION]
    inputs = moments(trained.network, calibration.split(64), trained.layers)
    outputs = gradient_moments(trained.network, calibration.split(BACKWARD), trained.layers)
    dense = trained.network(trained.held_out[:HELD_OUT]).log_softmax(1)
    rows = []
    x = trained.held_out[:HELD_OUT]
    for index, (name, layer) in enumerate(trained.network.named_children()):
        if name in trained.layers:
            seen = inputs[name].metric
            forms = {"output": seen, "loss": Metric(seen, outputs[name].metric)}
            for method in usable_methods(trained.layers[name]):
                row = _row("sides", trained, name, method)
                for form, weight in _found(trained, name, method, forms).items():
                    replaced = copy.deepcopy(layer)
                    replaced.load_state_dict({"weight": weight}, strict=False)
                    answers = trained.network[index + 1 :](replaced(x)).log_softmax(1)
                    row[form] = _rounded(_divergence(dense, answers))
                rows.append(row)
                _tell(row)
        x = layer(x)
    return rows


def _found(trained: Trained, name: str, method: Method, forms: dict[str, Any]) -> dict[str, Tensor]:
    """The kernel that each form of the metric leaves of a layer."""
    shape: LayerShape = trained.layers[name]
    ranks = ranks_for(method, shape, SHARE)
    stages = method.stages(shape, ranks)
    return {
        form: dense_weight(
            shape, stages, method.decompose(shape, trained.weight(name), metric).factors(ranks)
        )
        for form, metric in forms.items()
    }


def _divergence(dense: Tensor, answers: Tensor) -> float:
    """Mean over the images, of log-probabilities (N, C)."""
    return float(F.kl_div(answers, dense, log_target=True, reduction="batchmean"))


def _row(kind: str, trained: Trained, layer: str, method: Method) -> Row:
    return {"kind": kind, "network": trained.name, "layer": layer, "method": method.name}


def _median(ratios: Sequence[float]) -> float:
    return _rounded(statistics.median(ratios)) if ratios else 1.0


def _most(ratios: Sequence[float]) -> float:
    return _rounded(max(ratios, default=1.0))


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _tell(row: Row) -> None:
    print(*(f"{key}={value}" for key, value in row.items()), flush=True)
