"""What is known of a job, a line each, for its status."""

from typing import Literal, NamedTuple

from search.confirmation import Confirmation
from search.joint import Table, tables_of
from search.subject import Subject


class Condition(NamedTuple):
    """One thing that has been found out."""

    type: Literal["BaselineMeasured", "FasterLayersFound", "BudgetFeasible"]
    status: Literal["true", "false"]
    reason: str
    message: str


def baseline_condition(subject: Subject) -> Condition:
    """What the dense network does on these data and this device."""
    baseline = subject.baseline
    message = (
        f"{baseline.metric} {baseline.value:.4g} on {baseline.samples:,} samples, "
        f"{baseline.latency_ms.p50_ms:.3f} ms at batch {len(subject.example)} "
        f"on {subject.device.type}"
    )
    return Condition("BaselineMeasured", "true", "ok", message)


def analysis_condition(table: Table) -> Condition:
    """Whether any layer has a form worth trying."""
    if table.is_empty:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in table.kept_dense.items())
        return Condition("FasterLayersFound", "false", "nothing_faster", reasons)
    message = f"{len(table.layers)} layers have cheaper forms, {len(table.kept_dense)} stay dense"
    if (widths := len(tables_of(table))) > 1:
        message += f"; the network is tried at {widths} widths"
    return Condition("FasterLayersFound", "true", "ok", message)


def confirmation_condition(confirmation: Confirmation) -> Condition:
    """Whether the promise is kept by a faster network."""
    status: Literal["true", "false"] = "true" if confirmation.verdict == "budget_met" else "false"
    return Condition("BudgetFeasible", status, confirmation.verdict, confirmation.sentence)
