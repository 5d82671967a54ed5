"""From a network to the choice table: what each layer could be, how fast that is, what it loses.

Timing comes first, with whatever values a layer is born with: time does not depend on them, and
factors are computed only for what is faster than dense on this device.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.equivalent import dense_weight, relative_error
from compress.errors import CompressError
from compress.methods.registry import method_named
from compress.plan import Choice
from compress.shape import LayerShape, Stage, stage_macs, stage_parameters
from compress.surgery import blank_layer
from search.config import ConfigError, SearchConfig
from search.measurement import time_layers
from search.subject import Subject
from search.table import ChoiceRow, ChoiceTable, LayerRow
from search.vbmf import evbmf_rank

GAIN = 0.97  # of the dense layer's time: a lesser gain is noise
RANKS = {"svd": 16, "spatial_svd": 16, "tucker2": 12, "cp3": 8, "cp4": 8}
"""How many ranks of a method are looked at: more where one decomposition serves them all."""
LAYER_SECONDS = 0.5  # of timing, for all forms of a layer together
TIMING_SHARE = 0.3  # of the analysis, in the progress that is reported

Report = Callable[[float, str], None]
"""Told the fraction done, in [0, 1], and a sentence on what is being done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """One way to hold a layer, timed before its loss is known."""

    choice: Choice
    stages: tuple[Stage, ...]
    latency_ms: float


def analyse(subject: Subject, config: SearchConfig, report: Report) -> ChoiceTable:
    """Time every form of every layer, and predict the loss of those that are faster than dense.

    A layer of which no other form is left is kept dense, with a sentence that says why.

    Args:
        subject: the network; the moments of its layers are collected here.
        config: methods, excluded layers, and the circumstances of the timing.
        report: told how far the analysis is.

    Raises:
        ConfigError: a layer is excluded that the network does not have.
    """
    kept_dense = _obstacles(subject, config)
    names = [name for name in subject.traces if name not in kept_dense]
    dense_rows: dict[str, ChoiceRow] = {}
    forms: dict[str, list[_Form]] = {}
    for i, name in enumerate(names):
        report(TIMING_SHARE * i / len(names), f"timing the forms of {name}")
        dense_rows[name], found = _time_forms(subject, config, name)
        limit = GAIN * dense_rows[name].latency_ms
        forms[name] = [form for form in found if form.latency_ms < limit]
        if not forms[name]:
            kept_dense[name] = _why_slower(found, dense_rows[name].latency_ms)
    names = [name for name in names if forms[name]]
    report(TIMING_SHARE, "collecting the inputs of the layers")
    subject.collect(names)
    layers = []
    for i, name in enumerate(names):
        fraction = TIMING_SHARE + (1 - TIMING_SHARE) * i / len(names)
        report(fraction, f"decomposing {name}")
        rows = _front([dense_rows[name], *_predict(subject, name, forms[name])])
        if len(rows) == 1:
            kept_dense[name] = "none of its faster forms could be computed"
            continue
        weight = subject.dense.get_submodule(name).get_parameter("weight")
        layers.append(LayerRow(name=name, choices=tuple(rows), vbmf=_nearest_vbmf(weight, rows)))
    report(1.0, f"{len(layers)} layers have faster forms, {len(kept_dense)} are kept dense")
    return ChoiceTable(
        layers=tuple(layers),
        dense_latency_ms=subject.baseline.latency_ms.p50_ms,
        dense_parameters=subject.baseline.parameters,
        dense_macs=subject.baseline.macs,
        kept_dense=kept_dense,
    )


def table_key(
    model_sha256: str,
    dataset_digest: str,
    config: SearchConfig,
    device: str,
    versions: Mapping[str, str],
) -> str:
    """What a table may be kept under: the digest of everything that it depends on.

    Args:
        model_sha256: of the network's weights.
        dataset_digest: of the data, whose calibration images the predicted losses come from.
        config: its methods, excluded layers and circumstances count, budget and strategy do not.
        device: by the name of the very hardware.
        versions: of torch and of whatever else computes.
    """
    document = {
        "model": model_sha256,
        "dataset": dataset_digest,
        "methods": sorted(config.methods),
        "exclude": sorted(config.exclude),
        "objective": asdict(config.objective),
        "device": device,
        "versions": dict(versions),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _obstacles(subject: Subject, config: SearchConfig) -> dict[str, str]:
    """The layers that nothing is tried on, with the reason, in the order of the network."""
    known = {layer.name for layer in subject.layers}
    if unknown := sorted(set(config.exclude) - known):
        raise ConfigError(f"exclude {unknown} came, layers of the network were wanted")
    reasons = {}
    for layer in subject.layers:
        if layer.name in config.exclude:
            reasons[layer.name] = "excluded by the order"
        elif layer.reason is not None:
            reasons[layer.name] = layer.reason
        elif layer.name not in subject.traces:
            reasons[layer.name] = "never called as a layer: its weight is read elsewhere"
        elif all(method in layer.refusals for method in config.methods):
            reasons[layer.name] = "; ".join(
                f"{method}: {layer.refusals[method]}" for method in config.methods
            )
    return reasons


def _time_forms(
    subject: Subject, config: SearchConfig, name: str
) -> tuple[ChoiceRow, list[_Form]]:
    """The dense layer and its other forms, timed on inputs of the shape that the layer meets."""
    shape, trace = subject.shape(name), subject.traces[name]
    refusals = next(layer.refusals for layer in subject.layers if layer.name == name)
    choices = {
        Choice(method, ranks): method_named(method).stages(shape, ranks)
        for method in config.methods
        if method not in refusals
        for ranks in _thinned(method, shape)
    }
    layers: dict[str, nn.Module] = {"dense": subject.dense.get_submodule(name)}
    for choice, stages in choices.items():
        layers[str(choice)] = blank_layer(stages).to_empty(device=subject.device)
    ...
