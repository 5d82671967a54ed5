"""Parameters of a model may be unknown: those of a state dict that is a pickle.

The column is copied, since SQLite cannot change one in place, nor drop a table that others refer
to.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _replace(sa.Column("replacement", sa.BigInteger(), nullable=True), "parameters")


def downgrade() -> None:
    known = sa.Column("replacement", sa.BigInteger(), nullable=False, server_default="0")
    _replace(known, "coalesce(parameters, 0)")
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("models", "parameters", server_default=None)


def _replace(column: sa.Column[int], value: str) -> None:
    op.add_column("models", column)
    op.execute(f"UPDATE models SET replacement = {value}")
    op.drop_column("models", "parameters")
    op.execute("ALTER TABLE models RENAME COLUMN replacement TO parameters")
