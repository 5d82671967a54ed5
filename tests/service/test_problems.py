"""Every error is a problem document (RFC 9457)."""

import re
from uuid import UUID

import numpy as np
import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError

from service import problems
from service.problems import KINDS, STORE, ProblemError, code_of
from service.store import errors
from service.store.errors import NotFoundError, StoreError
from tests.service.conftest import TOKEN
from tests.service.files import weights


def subclasses(base):
    return {base}.union(*(subclasses(each) for each in base.__subclasses__()))


def test_every_refusal_of_the_store_has_a_problem():
    wanted = subclasses(StoreError) - {StoreError}
    defined = {e for e in vars(errors).values() if isinstance(e, type)} - {StoreError}
    assert defined == wanted == set(STORE)
    assert {STORE[error] for error in STORE} <= set(KINDS)


def test_a_refusal_that_is_new_is_what_its_base_is():
    new = type("GoneError", (NotFoundError,), {})
    try:
        assert code_of(new) == "not-found"
    finally:
        del new


def test_every_kind_has_an_error_status_and_a_title():
    for code, kind in KINDS.items():
        assert re.fullmatch("[a-z]+(-[a-z]+)*", code)
        assert 400 <= kind.status < 600
        assert kind.title


def check(answer, status, code):
    """That an answer is this problem, in every part of it."""
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    problem = answer.json()
    assert problem["type"] == f"urn:ranksearch:problem:{code}"
    assert problem["status"] == status
    assert problem["title"] == KINDS[code].title
    assert problem["retryable"] is KINDS[code].retryable
    assert problem["instance"] == f"urn:uuid:{answer.headers['X-Request-Id']}"
    UUID(answer.headers["X-Request-Id"])
    assert problem["detail"]
    return problem


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/v1/jobs/", "/v1/jobs/a/b", "/%00"])
def test_a_path_that_is_not_there(client, path):
    check(client.get(path, follow_redirects=False), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/jobs", {"GET", "POST"}),
        ("PATCH", "/v1/jobs/job_0", {"GET", "DELETE"}),
        ("GET", "/v1/jobs/job_0/cancel", {"POST"}),
        ("POST", "/v1/artifacts/art_0/content", {"GET", "HEAD"}),
        ("DELETE", "/healthz", {"GET"}),
    ],
)
def test_a_method_that_is_not_for_the_path(client, method, path, allowed):
    answer = client.request(method, path)
    check(answer, 405, "method-not-allowed")
    assert set(answer.headers["Allow"].split(", ")) == allowed


def test_a_path_with_characters_that_no_database_takes(client_on_both):
    for path in ("/v1/jobs/a%00b", "/v1/models/%ff", "/v1/datasets/a%20b"):
        problem = check(client_on_both.get(path), 422, "invalid-request")
        assert problem["errors"][0]["in"] == "path"


def test_every_answer_has_a_request_id_of_its_own(client):
    ids = {client.get("/healthz").headers["X-Request-Id"] for _ in range(3)}
    assert len(ids) == 3


@pytest.fixture
def broken(app):
    """The application with paths that fail, and a client that is told of it like any other."""

    def path(name, error):
        def fail():
            raise error

        app.add_api_route(name, fail)

    path("/bug", RuntimeError("the secret of /srv/data"))
    path("/teapot", HTTPException(418, "short and stout"))
    path("/gateway", HTTPException(502, "no answer"))
    path("/database", OperationalError("SELECT secret", {}, Exception("gone")))
    path("/refusal", ProblemError("in-use", "no", errors=[{"pointer": "/a"}], headers={"X": "y"}))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with TestClient(app, headers=headers, raise_server_exceptions=False) as client:
        yield client


def test_a_bug_is_logged_and_not_shown(broken, caplog):
    answer = broken.get("/bug")
    check(answer, 500, "internal")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    (record,) = [r for r in caplog.records if r.name == problems.__name__]
    assert record.request == answer.headers["X-Request-Id"]
    assert "secret" in str(record.exc_info[1])


def test_a_database_that_is_away_is_told_and_logged(broken, caplog):
    answer = broken.get("/database")
    problem = check(answer, 503, "unavailable")
    assert problem["retryable"] is True
    assert int(answer.headers["Retry-After"]) > 0
    assert "secret" not in answer.text
    assert [r.request for r in caplog.records if r.name == problems.__name__] == [
        answer.headers["X-Request-Id"]
    ]


def test_a_refusal_has_its_errors_and_headers(broken):
    answer = broken.get("/refusal")
    assert check(answer, 409, "in-use")["errors"] == [{"pointer": "/a"}]
    assert answer.headers["X"] == "y"


def test_an_error_of_the_framework_keeps_its_status(broken):
    assert "short and stout" in check(broken.get("/teapot"), 418, "invalid-request")["detail"]
    check(broken.get("/gateway"), 502, "internal")


def test_a_database_without_tables_is_not_ready(app, settings):
    (settings.data_dir / "ranksearch.db").unlink()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with TestClient(app, headers=headers, raise_server_exceptions=False) as client:
        assert client.get("/healthz").json() == {"status": "alive"}
        check(client.get("/readyz"), 503, "unavailable")
        check(client.get("/v1/jobs"), 503, "unavailable")


def test_a_request_with_mistakes_without_number_gets_a_short_answer(client):
    order = {"model": "m", "dataset": "d", "budget": {"max_loss": 1, "unit": "points"}}
    answer = client.post("/v1/jobs", json=order | {"exclude": [0] * 40_000})
    problem = check(answer, 422, "invalid-request")
    assert len(problem["errors"]) == 20
    assert len(problem["detail"]) <= 2000


def test_a_name_without_end_gets_a_short_answer(client):
    tensor = weights(**{"x" * 100_000: np.array([np.nan], np.float32)})
    answer = client.post("/v1/models", params={"architecture": "digits_cnn"}, content=tensor)
    assert len(check(answer, 422, "not-finite")["detail"]) == 2000
