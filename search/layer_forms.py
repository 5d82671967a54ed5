"""What a layer could be, and how fast it is then; of recurrent layers see `search.weight_forms`."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from compress.layers import refusal
from compress.load import build_layer
from compress.methods.registry import method_named
from compress.plan import Choice
from compress.shape import Stage, stage_macs, stage_parameters
from compress.surgery import stage_rows
from search.config import SearchConfig
from search.measurement import time_layers
from search.subject import Subject
from search.table import ChoiceRow

LAYER_SECONDS = 0.4  # of timing, for all forms of a layer together


def time_forms(
    subject: Subject, config: SearchConfig, name: str
) -> tuple[ChoiceRow, list[ChoiceRow]]:
    """The dense layer and its other forms, timed on inputs of the shape that the layer meets.

    What the other forms lose is not known yet, and NaN.
    """
    shape, trace = subject.shape(name), subject.traces[name]
    choices = {
        Choice(method, ranks): method_named(method).stages(shape, ranks)
        for method in config.methods
        if refusal(method, shape) is None
        for ranks in method_named(method).grid(shape)
    }
    layers = {str(choice): _blank(stages, subject.device) for choice, stages in choices.items()}
    times = time_layers(
        {"dense": subject.dense.get_submodule(name), **layers},
        torch.randn(trace.input_shape, device=subject.device),
        runtime=subject.runtime,
        layout=subject.baseline.layout,
        seconds=LAYER_SECONDS,
    )
    dense = ChoiceRow(
        choice=None,
        loss=0.0,
        latency_ms=times["dense"] * trace.calls,
        parameters=shape.parameters,
        macs=shape.macs(trace.input_size) * trace.calls,
    )
    return dense, [
        ChoiceRow(
            choice=choice,
            loss=math.nan,
            latency_ms=times[str(choice)] * trace.calls,
            parameters=stage_parameters(stages),
            macs=stage_macs(stages, trace.input_size) * trace.calls,
        )
        for choice, stages in choices.items()
    ]


def _blank(stages: Sequence[Stage], device: torch.device) -> nn.Module:
    """A factorised layer of random values: what memory held before may be slow to compute with."""
    layer = build_layer(stage_rows(stages))
    values = {
        key: torch.randn(weight.shape, device=device) * weight[0].numel() ** -0.5
        for key, weight in layer.state_dict().items()
    }
    layer.load_state_dict(values, assign=True)  # to_empty would load sympy, which takes seconds
    return layer.eval()
