"""Fixtures: every test on a database of its own, made by the migrations, on SQLite and PostgreSQL.

The PostgreSQL server is started here, from the binaries of the machine, on a socket in a folder of
its own; without binaries those tests are skipped.
"""

import ctypes
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session, sessionmaker

from service.store import migrate
from service.store.session import make_engine, make_sessions

START_SECONDS = 60
MEMORY_BYTES = 2 << 30
TEMPLATE = "migrated"
_numbers = itertools.count()


def _binaries() -> Path | None:
    """The folder of initdb and postgres."""
    on_path = shutil.which("postgres")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if config := shutil.which("pg_config"):
        answer = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False)
        folders.append(Path(answer.stdout.strip()))
    return next((f for f in folders if (f / "initdb").exists() and (f / "postgres").exists()), None)


def _quick_folder() -> Path | None:
    """Where memory serves as the disk, if there is plenty: new databases come ten times faster."""
    memory = Path("/dev/shm")
    is_plenty = memory.is_dir() and shutil.disk_usage(memory).free > MEMORY_BYTES
    return memory if is_plenty else None


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGQUIT)  # PR_SET_PDEATHSIG; SIGQUIT: shut down at once


class Server:
    """A PostgreSQL of this test session."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://ranksearch@/{name}?host={self.folder}"

    def execute(self, statement: str) -> None:
        with psycopg.connect(
            host=str(self.folder), user="ranksearch", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(statement.encode())

    def create(self, template: str) -> str:
        """A new database as a copy of another; its URL."""
        name = f"test_{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def drop(self, url: str) -> None:
        self.execute(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """The server, with an empty `template1` and a database that the migrations have made."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server here: neither on PATH nor in /usr/lib/postgresql")
    # A socket's path is short and the server is never root: not in pytest's own folders.
    folder = Path(tempfile.mkdtemp(prefix="ranksearch-pg-", dir=_quick_folder()))
    user = "nobody" if os.geteuid() == 0 else None
    if user:
        shutil.chown(folder, user)
    data = folder / "data"
    started = None
    try:
        initdb = [binaries / "initdb", "-D", data, "-U", "ranksearch", "-A", "trust", "-E", "UTF8"]
        initdb += ["--locale=C", "--no-sync"]
        subprocess.run(initdb, cwd=folder, user=user, check=True, stdout=subprocess.DEVNULL)
        postgres = [binaries / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses="]
        postgres += ["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=200"]
        with (folder / "log").open("wb") as log:
            started = subprocess.Popen(
                postgres,
                cwd=folder,
                user=user,
                stderr=log,
                preexec_fn=_die_with_parent,  # noqa: PLW1509, no thread runs yet
            )
        server = Server(folder)
        _wait(server, started)
        server.execute(f"CREATE DATABASE {TEMPLATE}")
        migrate.upgrade(server.url(TEMPLATE))
        yield server
    finally:
        if started is not None:
            started.send_signal(signal.SIGINT)  # end sessions, then stop
            started.wait(timeout=START_SECONDS)
        shutil.rmtree(folder)


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            server.execute("SELECT 1")
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"PostgreSQL did not start:\n{(server.folder / 'log').read_text()}")
            time.sleep(0.02)
        else:
            return


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that the migrations have made, to be copied."""
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh database with all tables; each test runs once on SQLite, once on PostgreSQL."""
    if request.param == "sqlite":
        copy = tmp_path / "ranksearch.db"
        shutil.copyfile(request.getfixturevalue("migrated_sqlite"), copy)
        yield f"sqlite:///{copy}"
    else:
        server: Server = request.getfixturevalue("postgres")
        url = server.create(TEMPLATE)
        yield url
        server.drop(url)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without tables, on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        server: Server = request.getfixturevalue("postgres")
        url = server.create("template1")
        yield url
        server.drop(url)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on the test's database."""
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def sessions(engine: Engine) -> sessionmaker[Session]:
    """Sessions on the test's database."""
    return make_sessions(engine)
