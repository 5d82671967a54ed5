"""What runs deliver: the finalists of all of them, raced in one race."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from search.evaluation import allowed_on, loss_on, shown_loss
from search.subject import Subject

SECONDS_EACH = 2.0  # of the race, for every network in it


@dataclass(frozen=True, slots=True)
class Delivery:
    """A network that could be delivered."""

    speedup: float
    confirmation: Mapping[str, Any]
    """Its loss on images that served for nothing else, JSON as in `search.evaluation`."""
    verdict: str
    """By the point estimate, since all budgets here are."""


def delivered(subject: Subject, networks: Mapping[str, nn.Module]) -> dict[str, Delivery]:
    """By name, what `networks` come to on the confirmation split and in a race of all of them."""
    if not networks:
        return {}
    raced = subject.race(networks, seconds=SECONDS_EACH * (1 + len(networks)))
    budget = subject.config.budget
    allowed = allowed_on(subject.confirmation, budget)
    found = {}
    for name, network in networks.items():
        ratio = raced.ratios[name]
        loss = loss_on(subject.confirmation, network, budget)
        is_kept = loss.violation(allowed) <= 0
        found[name] = Delivery(
            speedup=1 / ratio.median,
            confirmation=shown_loss(budget, loss, allowed),
            verdict="no_gain" if ratio.high >= 1 else "budget_met" if is_kept else "budget_missed",
        )
    return found
