"""Candidates say what they cost, and the share of the dense network's MACs they have.

Before, latency was all that could be minimised: the cost of what is stored is its share of the
dense network's time. What the best of a job costs follows from its speed-up.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
JOBS = sa.table("jobs", sa.column("id"), sa.column("baseline", JSON), sa.column("best", JSON))
CANDIDATES = sa.table(
    "candidates",
    sa.column("id"),
    sa.column("job_id"),
    sa.column("costs", JSON),
    sa.column("measured", JSON),
)


def upgrade() -> None:
    dense_macs = {}
    for job in _rows(JOBS):
        dense_macs[job["id"]] = (job["baseline"] or {}).get("macs")
        if (job["best"] or {}).get("speedup"):
            _set(JOBS, job, best=job["best"] | {"cost": 1 / job["best"]["speedup"]})
    for candidate in _rows(CANDIDATES):
        costs, whole = candidate["costs"], dense_macs.get(candidate["job_id"])
        macs = candidate["measured"].get("macs")
        known = {
            "cost": costs.get("time_share"),
            "mac_share": macs / whole if macs and whole else None,
        }
        _set(CANDIDATES, candidate, costs=known | costs)


def downgrade() -> None:
    for job in _rows(JOBS):
        if job["best"]:
            _set(JOBS, job, best=_without(job["best"], "cost"))
    for candidate in _rows(CANDIDATES):
        _set(CANDIDATES, candidate, costs=_without(candidate["costs"], "cost", "mac_share"))


def _rows(table: sa.TableClause) -> list[dict[str, Any]]:
    return [dict(row) for row in op.get_bind().execute(sa.select(table)).mappings()]


def _set(table: sa.TableClause, row: Mapping[str, Any], **values: Any) -> None:
    op.get_bind().execute(sa.update(table).where(table.c.id == row["id"]).values(**values))


def _without(document: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names}
