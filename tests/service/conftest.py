"""The application over a migrated database, and a look at what it has kept."""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from service.app import create_app
from service.settings import Settings
from service.store import artifacts, candidates, lease
from service.store.blobs import Blobs
from service.store.tables import Base
from tests.service.files import arrays_npz, weights

TOKEN = "a-token-of-the-tests"


@pytest.fixture
def settings(migrated_sqlite: Path, tmp_path: Path) -> Settings:
    """SQLite in a folder of its own: what is not about the database is tested on one."""
    shutil.copyfile(migrated_sqlite, tmp_path / "ranksearch.db")
    return Settings(data_dir=tmp_path, token=TOKEN, max_upload_bytes=1 << 20, poll_seconds=0.01)


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client


@pytest.fixture(scope="module")
def lasting_client(
    migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    """One for all tests of a file that leave things as they were."""
    folder = tmp_path_factory.mktemp("lasting")
    shutil.copyfile(migrated_sqlite, folder / "ranksearch.db")
    settings = Settings(data_dir=folder, token=TOKEN, max_upload_bytes=1 << 20, poll_seconds=0.01)
    with TestClient(create_app(settings), headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client


@pytest.fixture
def client_on_both(database_url: str, tmp_path: Path) -> Iterator[TestClient]:
    """On SQLite and on PostgreSQL, for what the two might do differently."""
    settings = Settings(
        data_dir=tmp_path, database_url=database_url, token=TOKEN, poll_seconds=0.01
    )
    with TestClient(create_app(settings), headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client


@pytest.fixture
def traces(client: TestClient) -> Callable[[], set[str]]:
    """Every row and every file that the service keeps, in any of its folders."""
    return partial(traces_of, client)


def traces_of(client: TestClient) -> set[str]:
    state = client.app.state
    with state.sessions() as session:
        rows = {
            f"{table.name}: {count}"
            for table in Base.metadata.sorted_tables
            if (count := session.scalar(select(func.count()).select_from(table)))
        }
    files = {
        str(path.relative_to(state.settings.blobs))
        for path in state.settings.blobs.rglob("*")
        if path.is_file() and path.name != "lock"
    }
    return rows | files


@pytest.fixture
def model_id(client: TestClient) -> str:
    return add_model(client)


@pytest.fixture
def dataset_id(client: TestClient) -> str:
    return add_dataset(client)


@pytest.fixture
def order(model_id: str, dataset_id: str) -> dict:
    return order_of(model_id, dataset_id)


@pytest.fixture
def job_id(client: TestClient, order: dict) -> str:
    return client.post("/v1/jobs", json=order).json()["id"]


def order_of(model_id: str, dataset_id: str) -> dict:
    """The shortest order there is."""
    budget = {"max_loss": 0.5, "unit": "points"}
    return {"model": model_id, "dataset": dataset_id, "budget": budget}


def add_model(client: TestClient) -> str:
    answer = client.post("/v1/models", params={"architecture": "digits_cnn"}, content=weights())
    return answer.json()["id"]


def add_dataset(client: TestClient) -> str:
    return client.post("/v1/datasets", content=arrays_npz()).json()["id"]


def claim(sessions: sessionmaker[Session]) -> lease.Lease:
    """Begin the oldest queued job, as a worker does."""
    with sessions.begin() as session:
        held = lease.claim(session, "a worker", 60)
    assert held is not None
    return held


def record(
    sessions: sessionmaker[Session],
    held: lease.Lease,
    key: str,
    state: Literal["complete", "failed"] = "complete",
    **costs: float | None,
) -> str:
    """Store a candidate, as a worker does; its id."""
    with sessions.begin() as session:
        row = candidates.record(
            session,
            held,
            key=key,
            point=[1, 2],
            plan={"version": 1, "layers": {}},
            state=state,
            costs={
                "loss": 0.0,
                "violation": 0.0,
                "time_share": 1.0,
                "parameter_share": 1.0,
                "mac_share": 1.0,
                "cost": 1.0,
            }
            | costs,
            measured={"speedup": 2.0},
            reason=None,
            seconds=0.5,
        )
        return row.id


def publish(
    sessions: sessionmaker[Session], held: lease.Lease, blobs: Blobs, **contents: bytes
) -> None:
    """Make files the job's result, as a worker does."""
    files = []
    for name, content in contents.items():
        with blobs.writer() as writer:
            writer.write(content)
            files.append((name, "application/octet-stream", writer.commit(), len(content)))
    with sessions.begin() as session:
        artifacts.publish(session, held, files)
