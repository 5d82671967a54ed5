"""A network at two widths, and what evaluating it would find."""

from dataclasses import replace

from search.strategy import Candidate, Costs
from search.table import Start
from tests.search.tables import layer, row, table


def whole():
    """10 ms, of which 1 are in no layer."""
    return table(
        layer("a", 4.0, 1000, row(0.01, 2.0, 500), row(0.2, 1.0, 200)),
        layer("b", 5.0, 2000, row(0.02, 3.0, 900)),
    )


def narrow():
    """The same at a loss of 0.05, 6 ms, of which 0.8 are in no layer; b has no cheaper form."""
    start = Start(widths={"a": 3}, loss=0.05, latency_ms=6.0, parameters=1500, macs=15_000)
    found = table(layer("a", 2.0, 500, row(0.03, 1.0, 250)))
    dense = whole()
    return replace(
        found,
        dense_latency_ms=dense.dense_latency_ms,
        dense_parameters=dense.dense_parameters,
        dense_macs=dense.dense_macs,
        narrowed=start,
    )


class Biased:
    """Of the narrow network the times were predicted wrong: too long by half, if not told else."""

    def __init__(self, joint, allowed, factor=2 / 3):
        self.joint, self.allowed, self.factor = joint, allowed, factor

    def cost(self, point):
        return self.joint.cost(point) * (self.factor if point[0] else 1)

    def __call__(self, points):
        return [
            Candidate(
                point,
                Costs(
                    loss=self.joint.loss(point),
                    violation=self.joint.loss(point) - self.allowed,
                    time_share=self.cost(point),
                    parameter_share=1.0,
                    mac_share=1.0,
                    cost=self.cost(point),
                ),
            )
            for point in points
        ]
