"""The application as a whole: what it needs, what it says of itself."""

import re
import subprocess
import sys
from importlib.metadata import version
from typing import get_args

import pytest
from fastapi.testclient import TestClient

from compress.catalog import ALL_METHODS, ARCHITECTURES
from search.config import Metric, Unit
from service.app import create_app
from service.problems import KINDS
from service.store.tables import JobState


def test_the_service_starts_without_torch():
    heavy = ["torch", "torchvision", "sklearn", "deap", "workers", "search.run"]
    code = f"import sys, service.app; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"


def test_the_description_has_every_path(app):
    paths = app.openapi()["paths"]
    assert {path: set(methods) for path, methods in paths.items()} == {
        "/healthz": {"get"},
        "/readyz": {"get"},
        "/v1/capabilities": {"get"},
        "/v1/models": {"get", "post"},
        "/v1/models/{model_id}": {"get", "delete"},
        "/v1/datasets": {"get", "post"},
        "/v1/datasets/{dataset_id}": {"get", "delete"},
        "/v1/jobs": {"get", "post"},
        "/v1/jobs/{job_id}": {"get", "delete"},
        "/v1/jobs/{job_id}/cancel": {"post"},
        "/v1/jobs/{job_id}/candidates": {"get"},
        "/v1/jobs/{job_id}/pareto": {"get"},
        "/v1/jobs/{job_id}/events": {"get"},
        "/v1/jobs/{job_id}/artifacts": {"get"},
        "/v1/artifacts/{artifact_id}/content": {"get"},
    }


def test_the_description_says_how_to_ask_and_what_may_go_wrong(app):
    description = app.openapi()
    for path, methods in description["paths"].items():
        for operation in methods.values():
            problem = operation["responses"]["default"]["content"]["application/problem+json"]
            assert problem["schema"]["properties"]["code"]["enum"] == sorted(KINDS)
            assert "422" not in operation["responses"]  # FastAPI's own form, which never comes
            assert ("security" in operation) == path.startswith("/v1")
            assert operation["summary"]
    assert "HTTPValidationError" not in description["components"]["schemas"]
    upload = description["paths"]["/v1/models"]["post"]
    assert "application/octet-stream" in upload["requestBody"]["content"]
    assert {p["name"] for p in upload["parameters"]} == {"architecture", "name"}
    data = description["paths"]["/v1/datasets"]["post"]["requestBody"]["content"]
    assert set(data) == {"application/octet-stream", "application/json"}


def test_the_description_of_an_order_has_the_limits_of_the_configuration(app):
    schemas = app.openapi()["components"]["schemas"]
    assert schemas["JobOrder"]["additionalProperties"] is False
    assert set(schemas["JobOrder"]["required"]) == {"model", "dataset", "budget"}
    assert schemas["Budget"]["required"] == ["max_loss", "unit"]
    assert schemas["GeneticConfig"]["properties"]["population"]["minimum"] == 4


def test_operations_have_names_of_their_own(app):
    operations = [o for methods in app.openapi()["paths"].values() for o in methods.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)


def test_capabilities_name_what_requests_may_say(client, settings):
    capabilities = client.get("/v1/capabilities").json()
    assert capabilities["version"] == version("ranksearch")
    assert capabilities["architectures"] == sorted(ARCHITECTURES)
    assert capabilities["methods"] == list(ALL_METHODS)
    assert capabilities["strategies"] == ["estimation", "genetic", "uniform", "vbmf"]
    assert capabilities["objectives"] == ["latency", "macs", "parameters", "weighted"]
    assert capabilities["metrics"] == list(get_args(Metric))
    assert capabilities["units"] == list(get_args(Unit))
    assert set(capabilities["datasets"]) == {"digits", "mnist", "cifar10"}
    assert capabilities["limits"]["upload_bytes"] == settings.max_upload_bytes
    assert capabilities["states"] == [state.value for state in JobState]
    assert set(capabilities["problems"]) == set(KINDS)


def test_alive_and_ready(client):
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_a_folder_that_is_gone_is_not_ready(client, settings):
    (settings.blobs / "tmp").rmdir()
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert str(settings.data_dir) not in answer.text


def test_a_restart_finds_what_was_stored(app, client, model_id, settings):
    headers = {"Authorization": f"Bearer {settings.token}"}
    with TestClient(create_app(settings), headers=headers) as later:
        assert later.get(f"/v1/models/{model_id}").status_code == 200


@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
def test_the_description_is_served(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    assert re.search("ranksearch", answer.text)
