"""The energy threshold: each layer keeps the same share of the energy of its weight."""

from collections.abc import Sequence

from compress.equivalent import dense_weight
from compress.kernels import kernel_of
from compress.methods.groups import groups_of
from compress.methods.registry import method_named
from compress.metric import MetricError
from compress.plan import Choice
from search.ladder import LadderSearch
from search.strategy import Point
from search.subject import Subject
from search.table import ChoiceTable

# Methods of which singular values tell the energy. A CP has none.
SPECTRAL = ("svd", "spatial_svd", "tucker2")

Energies = Sequence[Sequence[float]]
"""Layer by layer, of each choice the share of the weight's squared norm that it keeps; dense
keeps 1, and 0 stands for a choice that the rule does not know."""


def energies_of(subject: Subject, table: ChoiceTable) -> list[list[float]]:
    """By decomposing each weight in the plain norm, without data: `Energies`."""
    found = []
    for layer in table.layers:
        choices = [row.choice for row in layer.choices]
        found.append([_energy(subject, layer.name, choice) for choice in choices])
    return found


def _energy(subject: Subject, name: str, choice: Choice | None) -> float:
    if choice is None:
        return 1.0
    if choice.method not in SPECTRAL:
        return 0.0
    shape, weight = subject.shape(name), subject.dense.get_submodule(name).get_parameter("weight")
    method = method_named(choice.method)
    decomposition = method.decompose(shape, weight.double(), None)
    error = decomposition.error(choice.ranks)
    if error is None:
        factors = decomposition.factors(choice.ranks)
        known = dense_weight(shape, method.stages(shape, choice.ranks), factors)
        error = MetricError(kernel_of(shape, weight), None, groups_of(shape)).of(known)
    return 1 - error


def energy_points(table: ChoiceTable, energies: Energies) -> list[Point]:
    """For each threshold that tells two plans apart, the fewest parameters in every layer."""
    thresholds = sorted({energy for layer in energies for energy in layer if energy > 0})
    points = dict.fromkeys(_within(table, energies, threshold) for threshold in thresholds)
    points.pop(table.dense_point, None)
    return list(points)


def _within(table: ChoiceTable, energies: Energies, threshold: float) -> Point:
    return tuple(
        min(
            (i for i, energy in enumerate(kept) if energy >= threshold),
            key=lambda i: (layer.choices[i].parameters, -kept[i]),
        )
        for layer, kept in zip(table.layers, energies, strict=True)
    )


class EnergySearch(LadderSearch):
    """Bisect the threshold: the least one that keeps the budget."""

    def __init__(self, table: ChoiceTable, energies: Energies) -> None:
        super().__init__(energy_points(table, energies))
