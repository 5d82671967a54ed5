"""Who may ask."""

import os
import stat
import threading
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from service.tokens import token_of
from tests.service.conftest import TOKEN
from tests.service.files import weights

OPEN = {"/healthz", "/readyz", "/openapi.json", "/docs", "/docs/oauth2-redirect"}


@pytest.fixture
def stranger(app):
    with TestClient(app) as client:
        yield client


def test_every_path_but_the_open_ones_asks_for_the_token(app, stranger):
    paths = app.openapi()["paths"]
    asked = {(method, path) for path in paths for method in paths[path]} | {
        ("head", "/v1/artifacts/{artifact_id}/content")
    }
    assert len(asked) > 15
    for method, path in asked:
        if path in OPEN:
            continue
        answer = stranger.request(method, path.format_map(dict.fromkeys(PARAMETERS, "job_0")))
        assert answer.status_code == 401, (method, path)
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="ranksearch"'


PARAMETERS = ("job_id", "model_id", "dataset_id", "artifact_id")


def test_the_open_paths_are_open(stranger):
    for path in OPEN:
        assert stranger.get(path).status_code == 200, path


@pytest.mark.parametrize(
    "header",
    [
        "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN,
        "Bearer \xe4\xf6", f"bearer  {TOKEN.upper()}",
    ],
)  # fmt: skip
def test_another_token_is_refused(stranger, header):
    answer = stranger.get("/v1/jobs", headers={"Authorization": header.encode("latin-1")})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert TOKEN not in answer.text


def test_a_wrong_token_is_told_from_none(stranger):
    answer = stranger.get("/v1/jobs", headers={"Authorization": "Bearer other"})
    assert answer.headers["WWW-Authenticate"].endswith('error="invalid_token"')


def test_an_upload_without_the_token_is_not_received(stranger, settings):
    answer = stranger.post("/v1/models?architecture=digits_cnn", content=weights())
    assert answer.status_code == 401
    assert list((settings.blobs / "tmp").iterdir()) == []


def test_the_token_goes_before_what_is_wrong_with_the_request(stranger):
    assert stranger.post("/v1/jobs", json={}).status_code == 401
    assert stranger.post("/v1/models").status_code == 401
    assert stranger.get("/v1/jobs?limit=0").status_code == 401


def test_authentication_can_be_turned_off(settings):
    with TestClient(create_app(replace(settings, auth=False, token=""))) as client:
        assert client.get("/v1/jobs").status_code == 200
    assert not (settings.data_dir / "token").exists()


def test_a_token_is_made_once_and_is_its_owners_alone(tmp_path):
    settings = Settings(data_dir=tmp_path / "new")
    token = token_of(settings)
    assert len(token) >= 40
    assert token_of(settings) == token
    assert stat.S_IMODE((tmp_path / "new" / "token").stat().st_mode) == 0o600
    assert os.listdir(tmp_path / "new") == ["token"]
    assert token_of(Settings(data_dir=tmp_path / "other")) != token


def test_the_token_of_the_settings_goes_before_the_stored_one(tmp_path):
    assert token_of(Settings(data_dir=tmp_path, token="mine")) == "mine"
    assert os.listdir(tmp_path) == []


def test_an_empty_token_file_is_refused(tmp_path):
    (tmp_path / "token").touch()
    with pytest.raises(ValueError, match="is empty"):
        token_of(Settings(data_dir=tmp_path))


def test_starts_at_the_same_time_read_the_same_token(tmp_path):
    tokens, begin = [], threading.Barrier(16)

    def start():
        begin.wait()
        tokens.append(token_of(Settings(data_dir=tmp_path)))

    threads = [threading.Thread(target=start) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == 16
    assert len(set(tokens)) == 1
    assert os.listdir(tmp_path) == ["token"]
