"""A network that was delivered, as a row of the record."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from benchmarks.paper.entry import SETTINGS
from benchmarks.record import commit, hardware
from search.config import Objective
from search.evaluation import allowed_on, loss_on
from search.measurement import race
from search.runtimes.registry import runtime_of
from search.subject import Subject

SECONDS = 3.0  # of the race in each setting
CONFIDENCE = 0.95

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What an entry came to."""

    model: nn.Module
    parameters: int
    macs: int | None
    """None where they were not counted."""
    evaluations: int
    seconds: float
    plan: str
    """The layers that are no longer dense, each with its method and ranks, for a reader."""


def dense_row(subject: Subject) -> Row:
    """The network as it came."""
    accuracy = float(subject.confirmation.dense_values("top1").mean())
    return {
        "method": "dense",
        "kind": "dense",
        "accuracy": 100 * accuracy,
        "samples": len(subject.confirmation),
        "parameters": subject.parameters,
        "macs": subject.baseline.macs,
    }


def row(subject: Subject, who: Mapping[str, Any], found: Delivered) -> Row:
    """What was delivered, on the confirmation split and in every setting.

    Args:
        subject: the network, with the budget.
        who: what else the row says.
        found: the network to judge.
    """
    budget = subject.config.budget
    held_out = subject.confirmation
    loss = loss_on(held_out, found.model, replace(budget, confidence=CONFIDENCE))
    dense = float(held_out.dense_values(budget.metric).mean())
    return {
        **who,
        "accuracy": 100 * (dense - loss.value),
        "samples": loss.samples,
        "drop": budget.shown(loss.value),
        "drop_at_most": budget.shown(loss.upper),
        "kept": loss.value <= allowed_on(held_out, budget),
        "speedups": speedups(subject, found.model),
        "parameters": found.parameters,
        "macs": found.macs,
        "evaluations": found.evaluations,
        "seconds": round(found.seconds, 1),
        "plan": found.plan,
        "commit": commit(),  # rows of a journal may be of several, and of several machines
        "processor": hardware()["processor"],
    }


def speedups(subject: Subject, model: nn.Module) -> dict[str, dict[str, float]]:
    """By "runtime batch", T_dense / T with its 95 % interval, and both medians in milliseconds."""
    found = {}
    for runtime, batch in SETTINGS:
        objective = Objective(device="cpu", runtime=runtime, batch=batch)
        timed = race(
            {"dense": subject.opponent, "compressed": model},
            subject.search.inputs(0, batch),
            runtime=runtime_of(objective),
            seconds=SECONDS,
        )
        ratio = timed.ratios["compressed"]
        found[f"{runtime} {batch}"] = {
            "speedup": 1 / ratio.median,
            "low": 1 / ratio.high,
            "high": 1 / ratio.low,
            "dense_ms": timed.timings["dense"].p50_ms,
            "ms": timed.timings["compressed"].p50_ms,
            "rounds": timed.rounds,
        }
    return found


def asked(subject: Subject) -> dict[str, Any]:
    """The part of a row that the order says."""
    config = subject.config
    recovery = config.recovery
    return {
        "budget": config.budget.max_loss,
        "runtime": config.objective.runtime,
        "batch": config.objective.batch,
        "widths": config.widths,
        "recovery": None if recovery.method == "none" else asdict(recovery),
    }
