"""fasterai's decomposers: Tucker for convolutions, SVD for linear layers, one energy for all."""

import copy

from fasterai.misc.conv_decomposer import Conv_Decomposer
from fasterai.misc.fc_decomposer import FC_Decomposer
from torch import nn

from benchmarks.rivals.simple import recalibrated
from search.strategy import Point
from search.subject import Subject

# Shares of the energy of a weight, the boldest first.
ENERGIES = (
    0.2,
    0.3,
    0.4,
    0.5,
    0.55,
    0.6,
    0.65,
    0.7,
    0.75,
    0.8,
    0.85,
    0.9,
    0.925,
    0.95,
    0.975,
    0.99,
)


def build(subject: Subject, point: Point) -> nn.Module:
    """The dense network decomposed at the energy that the point's only index names."""
    energy = ENERGIES[point[0]]
    network = copy.deepcopy(subject.dense)
    network = Conv_Decomposer().decompose(network, method="tucker", energy_threshold=energy)
    network = FC_Decomposer().decompose(network, energy_threshold=energy)
    return recalibrated(subject, network)
