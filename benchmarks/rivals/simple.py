"""What every network of the rivals gets before it is raced, since the dense one gets it too."""

from torch import nn

from compress.plan import Plan
from compress.reference import Reference
from compress.repair import repair_
from compress.simplify import simplify_
from search.subject import REPAIR_BATCHES, Subject


def simplified(subject: Subject, network: nn.Module) -> nn.Module:
    """`network`, in place, with neighbours multiplied out; for those with the layers of dense."""
    network.eval().requires_grad_(False)
    fold_norms = subject.config.objective.fold_norms
    simplify_(network, subject.flow, subject.calibration[0], fold_norms=fold_norms)
    return network


def recalibrated(subject: Subject, network: nn.Module) -> nn.Module:
    """`network`, in place, with the batch norm statistics that factorised networks get too."""
    network.eval().requires_grad_(False)
    batches = subject.calibration[:REPAIR_BATCHES]
    repair_(network, Plan(), Reference.of(subject.dense, (), batches))
    return network
