"""What the weights of a recurrent layer could be, and how fast the whole layer then is.

A weight is never run alone: which routine does the steps depends on the others. So a form is timed
as the whole layer with this weight in that form, the others dense. What the weights save in this
way does not add up. The savings are scaled to those of the layer with the fastest form of each, and
what it still takes then is divided among the weights by their MACs. So the rows of a layer add up
to the dense layer, and to its fastest form, and each takes some time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from compress.layers import refusal
from compress.plan import Choice
from compress.recurrent.methods import blank_projection, grid, macs
from compress.recurrent.projection import Projection
from compress.recurrent.weights import joined
from compress.shape import WeightShape
from compress.surgery import with_projections
from search.config import SearchConfig
from search.measurement import time_layers
from search.subject import Subject
from search.table import ChoiceRow

WEIGHT_SECONDS = 0.8  # of timing, for all forms of a weight together


@dataclass(frozen=True, slots=True)
class WeightForms:
    """The dense weight and its other forms, whose losses are not known yet, and NaN."""

    dense: ChoiceRow
    others: list[ChoiceRow]
    told: str
    """Of its fastest form alone, as a sentence."""


def time_weights(
    subject: Subject, config: SearchConfig, module: str, weights: Sequence[str]
) -> dict[str, WeightForms]:
    """Time every form of the weights of a recurrent layer, on inputs of the shape that it meets.

    Args:
        subject: the network.
        config: methods, and modes, which are those of the weights.
        module: name of the layer.
        weights: names of those of its weights that may be factorised.

    Returns:
        By the names of the rows, MODULE.WEIGHT.
    """
    layer = _Layer(subject, module)
    own = [_Weight.of(subject, config, module, weight) for weight in weights]
    forms = {(each.name, choice): each for each in own for choice in each.projections}
    times = layer.times(
        [{each.weight: each.projections[choice]} for (_, choice), each in forms.items()],
        WEIGHT_SECONDS * len(own),
    )
    shares = dict(zip(forms, times, strict=True))
    for each in own:
        each.savings = {choice: 1 - shares[each.name, choice] for choice in each.projections}
    together = layer.together([each for each in own if each.most > 0])
    singly = sum(max(each.most, 0.0) for each in own)
    scale = together / singly if singly > 0 else 1.0
    total = sum(each.macs for each in own)
    return {
        each.name: each.rows(
            layer.dense_ms,
            share=(1 - together) * each.macs / total + scale * max(each.most, 0.0),
            scale=scale,
        )
        for each in own
    }


class _Layer:
    """A recurrent layer that is timed."""

    def __init__(self, subject: Subject, module: str) -> None:
        self._subject = subject
        self._layer, self._use = subject.recurrent_layer(module), subject.uses[module]
        self._dense_ms = math.nan

    @property
    def dense_ms(self) -> float:
        """Of all calls in a pass, as it was timed first."""
        return self._dense_ms * self._use.calls

    def times(self, forms: Sequence[dict[str, Projection]], seconds: float) -> list[float]:
        """With each set of projections, over the time that it takes as torch has it."""
        layers: dict[str, nn.Module] = {
            str(i): with_projections(self._layer, form, sharing=True).eval()
            for i, form in enumerate(forms)
        }
        found = time_layers(
            {"dense": self._layer, **layers},
            torch.randn_like(self._use.inputs),
            runtime=self._subject.runtime,
            layout="contiguous",
            seconds=seconds,
        )
        if math.isnan(self._dense_ms):
            self._dense_ms = found["dense"]
        return [found[name] / found["dense"] for name in layers]

    def together(self, weights: Sequence["_Weight"]) -> float:
        """The share of the time that the fastest forms save: of these weights, or of one alone."""
        singly = max((each.most for each in weights), default=0.0)
        if len(weights) < 2:
            return singly
        fastest = {each.weight: each.projections[each.fastest] for each in weights}
        (share,) = self.times([fastest], WEIGHT_SECONDS)
        return max(1 - share, singly)


@dataclass
class _Weight:
    """A weight, its forms, and the share of the layer's time that each saves by itself."""

    name: str
    weight: str
    shape: WeightShape
    vectors: int  # that it is multiplied by, for one input of the network
    projections: dict[Choice, Projection]
    savings: dict[Choice, float]

    @classmethod
    def of(cls, subject: Subject, config: SearchConfig, module: str, weight: str) -> "_Weight":
        name = joined(module, weight)
        shape, trace = subject.shape(name), subject.traces[name]
        assert isinstance(shape, WeightShape)
        choices = (
            choice
            for method in config.methods
            if refusal(method, shape) is None
            for choice in grid(method, shape, config.modes_of(name))
        )
        projections = {
            choice: blank_projection(shape, choice).to(subject.device) for choice in choices
        }
        return cls(name, weight, shape, math.prod(trace.input_size) * trace.calls, projections, {})

    @property
    def macs(self) -> int:
        """Of the dense weight."""
        return self.shape.macs((self.vectors,))

    @cached_property
    def fastest(self) -> Choice:
        return max(self.savings, key=lambda choice: self.savings[choice])

    @property
    def most(self) -> float:
        """What the fastest form saves; below zero where it is slower."""
        return self.savings[self.fastest] if self.savings else 0.0

    def rows(self, dense_ms: float, *, share: float, scale: float) -> WeightForms:
        """Args:
        dense_ms: of the whole layer.
        share: of this weight, of that time.
        scale: that the savings count with.
        """
        dense = ChoiceRow(
            choice=None,
            loss=0.0,
            latency_ms=share * dense_ms,
            parameters=self.shape.parameters,
            macs=self.macs,
        )
        others = [
            ChoiceRow(
                choice=choice,
                loss=math.nan,
                latency_ms=(share - scale * self.savings[choice]) * dense_ms,
                parameters=sum(factor.numel() for factor in projection.parameters()),
                macs=macs(projection, self.vectors),
            )
            for choice, projection in self.projections.items()
        ]
        return WeightForms(dense, others, self._told)

    @property
    def _told(self) -> str:
        if not self.savings:
            return "no method has ranks that are cheaper than the dense weight"
        return (
            f"nothing was faster: with its best form, {self.fastest}, the whole layer takes "
            f"{100 * (1 - self.most):.0f} % of the dense layer's time"
        )
