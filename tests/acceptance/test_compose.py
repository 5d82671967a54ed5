"""docker-compose.yml: what it says, and each service's own command run on this machine."""

import json
import os
import re
import shutil
import signal
import subprocess
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from sqlalchemy import create_engine, inspect

from tests.acceptance.processes import ROOT, environment, running, until
from tests.databases import Server

TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES = COMPOSE["services"]
OURS = ("migrate", "api", "worker")
VARIABLE = re.compile(r"\$\{(\w+):\?[^}]+\}")


@pytest.fixture
def database(postgres: Server) -> Iterator[str]:
    """An empty PostgreSQL database, in place of the service of that name."""
    url = postgres.create("template1")
    yield url
    postgres.drop(url)


def settings_of(service: str, database: str, folder: Path) -> dict[str, str]:
    """The environment of a service, with addresses of this machine."""
    given = {name: VARIABLE.sub("secret", str(v)) for name, v in environ(service).items()}
    here = {"RANKSEARCH_DATABASE_URL": database, "RANKSEARCH_DATA_DIR": str(folder)}
    if "RANKSEARCH_HOST" in given:
        here |= {"RANKSEARCH_HOST": "127.0.0.1", "RANKSEARCH_PORT": "0"}
    return environment() | given | here


def environ(service: str) -> dict[str, str]:
    return SERVICES[service].get("environment", {})


def run(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=env, cwd=ROOT, check=False, capture_output=True, text=True)


def healthcheck(service: str) -> list[str]:
    kind, *command = SERVICES[service]["healthcheck"]["test"]
    assert kind == "CMD"
    return command


def test_it_has_a_database_a_migration_an_api_and_a_worker():
    assert list(SERVICES) == ["database", *OURS]


def test_nobody_is_root():
    assert SERVICES["database"]["user"] == "postgres"
    for service in OURS:
        lines = SERVICES[service]["build"]["dockerfile_inline"].splitlines()
        users = [line for line in lines if line.startswith("USER ")]
        assert users == ["USER ranksearch"]
        assert lines.index("USER ranksearch") == len(lines) - 1
        assert SERVICES[service]["cap_drop"] == ["ALL"]


def test_every_secret_comes_from_the_environment_and_has_no_default():
    secrets = re.findall(r"\$\{[^}]*\}", TEXT)
    assert {VARIABLE.fullmatch(secret)[1] for secret in secrets} == {
        "POSTGRES_PASSWORD",
        "RANKSEARCH_TOKEN",
    }
    assert not re.search(r"(PASSWORD|TOKEN): (?!\$\{)", TEXT)


def test_the_worker_reserves_a_gpu():
    (device,) = SERVICES["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


def test_api_and_worker_share_the_files_and_start_after_the_migration():
    for service in ("api", "worker"):
        assert SERVICES[service]["volumes"] == ["files:/data"]
        assert environ(service)["RANKSEARCH_DATA_DIR"] == "/data"
        wanted = {"migrate": {"condition": "service_completed_successfully"}}
        assert SERVICES[service]["depends_on"] == wanted
    assert SERVICES["migrate"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert set(COMPOSE["volumes"]) == {"database", "files"}


def test_the_api_is_reached_from_this_machine_alone():
    assert SERVICES["api"]["ports"] == ["127.0.0.1:8000:8000"]


def test_the_images_install_the_extras_that_are_declared_from_files_that_are_sent():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    sent = [
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    ]
    assert all((ROOT / name).exists() for name in sent)
    found = project["tool"]["setuptools"]["packages"]["find"]["include"]
    assert all(pattern.endswith("*") for pattern in found)  # whatever is inside is sent along
    packages = {pattern[:-1] for pattern in found}
    assert packages | {"pyproject.toml", "requirements.lock", "README.md"} == set(sent)
    for service, extra in (("migrate", "service"), ("api", "service"), ("worker", "worker")):
        recipe = SERVICES[service]["build"]["dockerfile_inline"]
        assert re.findall(r'"\.\[(\w+)\]"', recipe) == [extra]
        assert extra in project["project"]["optional-dependencies"]


@pytest.mark.postgres
def test_the_services_start_in_turn_and_find_themselves_healthy(database, tmp_path):
    migrate = settings_of("migrate", database, tmp_path)
    ended = run(SERVICES["migrate"]["command"], migrate)
    assert ended.returncode == 0, ended.stderr
    engine = create_engine(database)
    assert {"jobs", "models", "alembic_version"} <= set(inspect(engine).get_table_names())
    engine.dispose()

    api = settings_of("api", database, tmp_path)
    with running([*SERVICES["api"]["command"], "--json"], api, cwd=ROOT) as served:
        url = json.loads(served.stdout.readline())["url"]
        with urllib.request.urlopen(f"{url}/healthz") as answer:
            assert answer.status == 200
        check = [part.replace("http://127.0.0.1:8000", url) for part in healthcheck("api")]
        assert check != healthcheck("api")
        assert run(check, api).returncode == 0
        os.kill(served.pid, signal.SIGTERM)
        assert served.wait(30) == 0
        assert run(check, api).returncode != 0

    worker = settings_of("worker", database, tmp_path)
    with running(SERVICES["worker"]["command"], worker, cwd=ROOT) as working:
        until(lambda: "worker ready" in working.stderr.readline())
        assert run(healthcheck("worker"), worker).returncode == 0
        os.kill(working.pid, signal.SIGTERM)
        assert working.wait(30) == 0
    away = worker | {"RANKSEARCH_DATABASE_URL": "postgresql+psycopg://nobody@127.0.0.1:9/none"}
    assert run(healthcheck("worker"), away).returncode != 0


@pytest.mark.postgres
def test_the_database_finds_itself_healthy(postgres):
    if shutil.which("pg_isready") is None:
        pytest.skip("no pg_isready on PATH")
    command = [*healthcheck("database"), f"--host={postgres.folder}"]
    assert run(command, environment()).returncode == 0
    assert run([*healthcheck("database"), "--host=127.0.0.1", "--port=9"], environment()).returncode
