"""All that a reader needs to believe a result; `search.report` says what each part means."""

import json
import math
from dataclasses import asdict
from typing import Any

from compress.plan import Plan
from search.config import Budget, SearchConfig
from search.confirmation import Confirmation
from search.evaluation import allowed_on, shown_loss
from search.found import Found
from search.joint import JointTable, Table
from search.measurement import circumstances
from search.pareto import unbeaten
from search.strategy import Candidate
from search.subject import Subject
from search.surrogate import limit, surrogate
from search.table import ChoiceRow, LayerRow


def evidence(
    subject: Subject,
    table: Table,
    config: SearchConfig,
    found: Found,
    confirmation: Confirmation,
) -> dict[str, Any]:
    """The evidence as JSON, in the words of `search.report`."""
    budget = config.budget
    allowed = allowed_on(subject.confirmation, budget)
    chosen, choices = table.of(confirmation.point)
    front = unbeaten(
        found.candidates,
        dense_point=table.dense_point,
        allowed=allowed_on(subject.search, budget),
    )
    return {
        "verdict": confirmation.verdict,
        "sentence": confirmation.sentence,
        "nearest_max_loss": confirmation.nearest_max_loss,
        "stopped_by": found.stopped_by,
        "budget": asdict(budget),
        "search": asdict(config.search),
        "recovery": _recovery(subject, config),
        "objective": asdict(config.objective)
        | {"device": subject.device.type, "weights": asdict(config.objective.minimised)},
        "circumstances": circumstances(subject.device, subject.runtime),
        "splits": {
            "calibration": sum(map(len, subject.calibration)),
            "search": len(subject.search),
            "confirmation": len(subject.confirmation),
        },
        "dense": subject.baseline.as_json(),
        "not_simplified": subject.not_simplified,
        "result": confirmation.measured,
        "layers": [
            _layer(layer, row)
            for layer, row in zip(chosen.layers, chosen.rows(choices), strict=True)
        ],
        "kept_dense": dict(chosen.kept_dense),
        "widths": _widths(subject, table, confirmation.plan),
        "tested": [
            {
                "plan": json.loads(finalist.plan.to_json()),
                "loss": shown_loss(budget, finalist.loss, allowed),
                "passed": finalist.passed,
            }
            for finalist in confirmation.tested
        ],
        "front": [_on_front(table, budget, candidate) for candidate in front],
        "evaluations": len(found.candidates),
        "failed": sum(math.isnan(c.costs.loss) for c in found.candidates),
        "search_seconds": round(found.seconds, 3),
        "samples_saved": round(found.samples_saved, 4),
        "surrogate": surrogate(table, found.candidates),
        "limit": limit(chosen, confirmation.measured["speedup"] if confirmation.measured else 1.0),
    }


def _widths(subject: Subject, table: Table, plan: Plan) -> dict[str, Any] | None:
    """Channels of each group before and after, and why others are in none; None if not ordered."""
    if not isinstance(table, JointTable):
        return None
    return {
        "tried": len(table.tables),
        "groups": [
            {
                "name": group.producer,
                "reader": group.reader,
                "channels": group.channels,
                "kept": plan.widths.get(group.producer, group.channels),
            }
            for group in subject.narrower.groups.values()
        ],
        "kept_whole": dict(table.kept_whole),
    }


def _on_front(table: Table, budget: Budget, candidate: Candidate) -> dict[str, Any]:
    """A candidate by its costs on the search split, its loss in the numbers a person reads."""
    costs = candidate.costs
    return {
        "plan": json.loads(table.plan(candidate.point).to_json()),
        "loss": budget.shown(costs.loss),
        "within": costs.is_feasible,
        "cost": costs.cost,
        "speedup": 1 / costs.time_share,
        "parameter_share": costs.parameter_share,
        "mac_share": costs.mac_share,
    }


def _recovery(subject: Subject, config: SearchConfig) -> dict[str, Any] | None:
    """As it was ordered, and what candidates were trained on and judged by meanwhile."""
    material = subject.material
    if material is None:
        return None
    return asdict(config.recovery) | {
        "samples": len(material),
        "left_out": material.left_out,
        "from_training": material.is_training,
    }


def _layer(layer: LayerRow, row: ChoiceRow) -> dict[str, Any]:
    """A layer as it was and as it is; latencies are of the layer alone."""
    return {
        "name": layer.name,
        "method": row.choice and row.choice.method,
        "ranks": row.choice and list(row.choice.ranks),
        "modes": row.choice and row.choice.modes and row.choice.modes.as_json(),
        "predicted_error": row.loss,
        "dense_latency_ms": layer.dense.latency_ms,
        "latency_ms": row.latency_ms,
        "dense_parameters": layer.dense.parameters,
        "parameters": row.parameters,
        "dense_macs": layer.dense.macs,
        "macs": row.macs,
        "choices": len(layer.choices) - 1,
    }
