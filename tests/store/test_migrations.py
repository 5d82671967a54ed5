"""The migrations make the tables of `service.store.tables`, no more and no less."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, select, update

from service.store import candidates, migrate, models
from service.store.session import make_engine, make_sessions
from service.store.tables import Base, CandidateRow, JobRow, ModelRow
from tests.store.rows import held


def table_names(url: str) -> set[str]:
    engine = make_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def differences(url: str) -> list[object]:
    engine = make_engine(url)
    options = {"compare_type": True, "compare_server_default": True}
    try:
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts=options)
            return compare_metadata(context, Base.metadata)
    finally:
        engine.dispose()


def test_migrations_leave_autogenerate_nothing_to_add(empty_database_url):
    assert differences(empty_database_url)  # without this, a comparison that sees nothing passes
    migrate.upgrade(empty_database_url)
    assert differences(empty_database_url) == []


def test_upgrading_twice_changes_nothing(empty_database_url):
    migrate.upgrade(empty_database_url)
    before = table_names(empty_database_url)
    migrate.upgrade(empty_database_url)
    assert table_names(empty_database_url) == before


def test_downgrading_to_base_leaves_no_table_and_upgrading_brings_them_back(empty_database_url):
    migrate.upgrade(empty_database_url)
    migrate.downgrade(empty_database_url, "base")
    assert table_names(empty_database_url) == {"alembic_version"}
    migrate.upgrade(empty_database_url)
    assert table_names(empty_database_url) > set(Base.metadata.tables)


def test_processes_that_upgrade_at_once_all_find_the_tables(empty_database_url):
    environment = {**os.environ, "RANKSEARCH_DATABASE_URL": empty_database_url}

    def start(_: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "service.migrate"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(start, range(2)))
    assert [(process.returncode, process.stderr) for process in ended] == [(0, "")] * 2
    assert table_names(empty_database_url) > set(Base.metadata.tables)


def test_without_a_url_the_tables_are_made_in_the_data_folder(tmp_path: Path):
    folder = tmp_path / "new" / "data"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RANKSEARCH_")}
    subprocess.run(
        [sys.executable, "-m", "service.migrate"],
        env=environment | {"RANKSEARCH_DATA_DIR": str(folder)},
        check=True,
    )
    assert table_names(f"sqlite:///{folder / 'ranksearch.db'}") > set(Base.metadata.tables)


def test_parameters_survive_the_column_s_replacement(empty_database_url):
    migrate.upgrade(empty_database_url)
    engine = make_engine(empty_database_url)
    try:
        with make_sessions(engine).begin() as session:
            for name, parameters in (("known", 7), ("unknown", None)):
                models.add(
                    session,
                    name=name,
                    architecture="digits_cnn",
                    sha256=name,
                    size_bytes=1,
                    parameters=parameters,
                )
        migrate.downgrade(empty_database_url, "0001")
        migrate.upgrade(empty_database_url)
        with make_sessions(engine)() as session:
            found = {row.name: row.parameters for row in session.scalars(select(ModelRow))}
    finally:
        engine.dispose()
    assert found == {"known": 7, "unknown": 0}


def costs_and_best(engine):
    with make_sessions(engine)() as session:
        costs = {row.key: row.costs for row in session.scalars(select(CandidateRow))}
        return costs, session.scalars(select(JobRow)).one().best


def test_what_candidates_cost_is_known_of_those_of_before(empty_database_url):
    """Latency was what they minimised; MACs are counted from the job's baseline."""
    old = {"loss": 0.1, "violation": 0.0, "time_share": 0.25, "parameter_share": 0.5}
    failed = dict.fromkeys(old)
    migrate.upgrade(empty_database_url)
    engine = make_engine(empty_database_url)
    try:
        with make_sessions(engine).begin() as session:
            lease = held(session)
            for key, costs, measured in (("a", old, {"macs": 30}), ("b", failed, {})):
                candidates.record(
                    session,
                    lease,
                    key=key,
                    point=(1,),
                    plan={},
                    state="complete",
                    costs=costs,
                    measured=measured,
                    reason=None,
                    seconds=1.0,
                )
            values = {"baseline": {"macs": 120}, "best": {"speedup": 4.0}}
            session.execute(update(JobRow).values(**values))
        migrate.downgrade(empty_database_url, "0002")
        before = costs_and_best(engine)
        migrate.upgrade(empty_database_url)
        after = costs_and_best(engine)
    finally:
        engine.dispose()
    assert before == ({"a": old, "b": failed}, {"speedup": 4.0})
    wanted = {
        "a": old | {"cost": 0.25, "mac_share": 0.25},
        "b": failed | {"cost": None, "mac_share": None},
    }
    assert after == (wanted, {"speedup": 4.0, "cost": 0.25})
