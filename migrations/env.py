"""What alembic runs: the migrations over the connection that `service.store.migrate` opened."""

from alembic import context
from sqlalchemy import Connection, text

from service.store.tables import Base

LOCK = 7_262_515  # any number that only these migrations take


def run(connection: Connection) -> None:
    """Run the scripts in one transaction, which also decides which of them are due."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transactional_ddl=True,  # holds on SQLite too, since its transactions begin explicitly
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":  # SQLite's writers are alone as they are
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        context.run_migrations()


run(context.config.attributes["connection"])
