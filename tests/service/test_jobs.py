"""Ordering, watching, cancelling and erasing searches."""

from dataclasses import asdict

import pytest
from pydantic import TypeAdapter

from compress.catalog import DEFAULT_METHODS
from search.config import Budget, GeneticConfig, Limits, Objective, SearchConfig, Weights
from service.store import jobs, lease, progress
from service.store.tables import JobState
from tests.service.conftest import (
    add_dataset,
    add_model,
    claim,
    order_of,
    publish,
    record,
)
from tests.service.files import weights


def test_an_order_is_accepted_and_can_be_watched(client, order):
    answer = client.post("/v1/jobs", json=order)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
    assert int(answer.headers["Retry-After"]) > 0
    assert job["state"] == "queued"
    assert job["counts"] == {"complete": 0, "failed": 0}
    assert job["request"]["model"] == order["model"]
    assert job["request"]["dataset"] == order["dataset"]
    read = client.get(answer.headers["Location"])
    assert read.json() == job
    assert read.headers["ETag"] == answer.headers["ETag"]


def test_what_is_left_out_has_the_defaults_of_the_configuration(client, order):
    request = client.post("/v1/jobs", json=order).json()["request"]
    wanted = SearchConfig(budget=Budget(max_loss=0.5, unit="points"))
    assert TypeAdapter(SearchConfig).validate_python(
        {k: v for k, v in request.items() if k not in ("model", "dataset")}
    ) == wanted  # fmt: skip


def test_a_worker_reads_back_what_was_ordered(client, model_id, dataset_id):
    order = {
        "model": model_id,
        "dataset": dataset_id,
        "budget": {"max_loss": 1, "unit": "relative_percent", "metric": "loss", "confidence": None},
        "objective": {"device": "cpu", "batch": 8, "threads": 2},
        "methods": ["svd", "cp3"],
        "exclude": ["classify"],
        "search": {"strategy": "genetic", "population": 8, "seed": 3},
        "limits": {"max_seconds": 60, "max_evaluations": 20},
        "name": "a name",
        "labels": {"team": "edge"},
        "priority": 5,
    }
    job = client.post("/v1/jobs", json=order).json()
    assert (job["name"], job["labels"], job["priority"]) == ("a name", {"team": "edge"}, 5)
    with client.app.state.sessions() as session:
        stored = jobs.get(session, job["id"]).request
    wanted = SearchConfig(
        budget=Budget(max_loss=1, unit="relative_percent", metric="loss", confidence=None),
        objective=Objective(device="cpu", batch=8, threads=2),
        methods=("svd", "cp3"),
        exclude=("classify",),
        search=GeneticConfig(population=8, seed=3),
        limits=Limits(max_seconds=60, max_evaluations=20),
    )
    assert TypeAdapter(SearchConfig).validate_python(stored) == wanted
    assert stored.keys() == asdict(wanted).keys()


def test_a_weighted_order_is_read_back_with_its_weights(client, order):
    objective = {"minimise": "weighted", "weights": {"latency": 0.7, "macs": 0.3}}
    job = client.post("/v1/jobs", json=order | {"objective": objective}).json()
    with client.app.state.sessions() as session:
        stored = TypeAdapter(SearchConfig).validate_python(jobs.get(session, job["id"]).request)
    wanted = Objective(minimise="weighted", weights=Weights(latency=0.7, macs=0.3))
    assert stored.objective == wanted


def test_an_order_of_before_there_were_weights_minimises_latency(client, order):
    request = client.post("/v1/jobs", json=order).json()["request"]
    del request["model"], request["dataset"], request["objective"]["weights"]
    stored = TypeAdapter(SearchConfig).validate_python(request)
    assert stored.objective.minimised == Weights(latency=1.0)


def test_a_name_is_taken_once(client, order):
    named = order | {"name": "mine"}
    first, second = client.post("/v1/jobs", json=named), client.post("/v1/jobs", json=named)
    assert (first.status_code, second.status_code) == (202, 409)
    assert second.json()["code"] == "name-taken"


def test_the_etag_changes_with_everything_that_is_shown(client, job_id):
    state = client.app.state
    url, seen = f"/v1/jobs/{job_id}", {}

    def look():
        answer = client.get(url)
        document = {k: v for k, v in answer.json().items() if k != "updated_at"}
        assert seen.setdefault(answer.headers["ETag"], document) == document
        return answer

    look()
    held = claim(state.sessions)
    assert look().json()["state"] == "running"
    with state.sessions.begin() as session:
        progress.phase(session, held, "searching")
    assert look().json()["phase"] == "searching"
    with state.sessions.begin() as session:
        progress.baseline(session, held, {"metric": 93.6})
    assert look().json()["baseline"] == {"metric": 93.6}
    record(state.sessions, held, "one")
    assert look().json()["counts"] == {"complete": 1, "failed": 0}
    with state.sessions.begin() as session:
        progress.best(session, held, {"speedup": 2.0})
    assert look().json()["best"] == {"speedup": 2.0}
    with state.sessions.begin() as session:
        progress.condition(session, held, type="BaselineMeasured", status="true", reason="ok")
    assert look().json()["conditions"][0]["type"] == "BaselineMeasured"
    with state.sessions.begin() as session:
        lease.finish(session, held, JobState.SUCCEEDED, verdict="budget_met")
    last = look()
    assert (last.json()["state"], last.json()["verdict"]) == ("succeeded", "budget_met")
    assert "Retry-After" not in last.headers
    assert len(seen) == 8


def test_a_job_that_has_not_changed_is_not_sent_again(client, job_id):
    url = f"/v1/jobs/{job_id}"
    etag = client.get(url).headers["ETag"]
    assert etag.startswith('"')  # strong
    same = client.get(url, headers={"If-None-Match": etag})
    assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", etag)
    assert int(same.headers["Retry-After"]) > 0
    claim(client.app.state.sessions)
    assert client.get(url, headers={"If-None-Match": etag}).status_code == 200


def test_a_queued_job_is_cancelled_at_once(client, job_id):
    answer = client.post(f"/v1/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    assert "Retry-After" not in answer.headers
    again = client.post(f"/v1/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()) == (202, answer.json())


def test_a_running_job_is_told_to_stop_and_keeps_its_best(client, job_id):
    held = claim(client.app.state.sessions)
    with client.app.state.sessions.begin() as session:
        progress.best(session, held, {"speedup": 2.0})
    answer = client.post(f"/v1/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
    assert int(answer.headers["Retry-After"]) > 0
    assert client.post(f"/v1/jobs/{job_id}/cancel").json()["state"] == "cancelling"
    with client.app.state.sessions.begin() as session:
        lease.finish(session, held, JobState.CANCELLED)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["state"], job["best"]) == ("cancelled", {"speedup": 2.0})


def test_a_job_is_erased_only_after_its_end(client, job_id, settings, traces, model_id):
    held = claim(client.app.state.sessions)
    publish(client.app.state.sessions, held, client.app.state.blobs, result=b"content")
    refused = client.delete(f"/v1/jobs/{job_id}")
    assert (refused.status_code, refused.json()["code"]) == (409, "state-conflict")
    client.post(f"/v1/jobs/{job_id}/cancel")
    with client.app.state.sessions.begin() as session:
        lease.finish(session, held, JobState.CANCELLED)
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert client.get(f"/v1/jobs/{job_id}").status_code == 404
    kept = {trace.partition(":")[0] for trace in traces() if ":" in trace}
    assert kept == {"models", "datasets"}
    assert client.delete(f"/v1/models/{model_id}").status_code == 204


def test_jobs_are_listed_newest_first_and_filtered(client, order):
    other = order | {"model": other_model(client)}
    first, second, third = (
        client.post("/v1/jobs", json=o).json()["id"] for o in (order, other, order)
    )
    held = claim(client.app.state.sessions)
    assert held.job_id == first
    with client.app.state.sessions.begin() as session:
        lease.finish(session, held, JobState.SUCCEEDED, verdict="no_gain")

    def listed(**query):
        return [job["id"] for job in client.get("/v1/jobs", params=query).json()["data"]]

    assert listed() == [third, second, first]
    assert listed(state="queued") == [third, second]
    assert listed(state="succeeded") == listed(verdict="no_gain") == [first]
    assert listed(verdict="budget_met") == []
    assert listed(model=order["model"]) == [third, first]
    assert listed(model=other["model"], state="queued") == [second]


def other_model(client):
    answer = client.post("/v1/models", params={"architecture": "song_mnist"}, content=weights())
    return answer.json()["id"]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ({"state": "done"}, "state"),
        ({"verdict": "good"}, "verdict"),
        ({"limit": 0}, "limit"),
        ({"limit": 201}, "limit"),
        ({"after": "\0"}, "after"),
        ({"sate": "queued"}, "sate"),
    ],
    ids=str,
)
def test_a_filter_that_is_none_is_refused(client, query, parameter):
    answer = client.get("/v1/jobs", params=query)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")
    assert answer.json()["errors"][0]["parameter"] == parameter


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/jobs/job_0"),
        ("DELETE", "/v1/jobs/job_0"),
        ("POST", "/v1/jobs/job_0/cancel"),
        ("GET", "/v1/jobs/job_0/candidates"),
        ("GET", "/v1/jobs/job_0/events"),
        ("GET", "/v1/models/mod_0"),
        ("DELETE", "/v1/models/mod_0"),
        ("GET", "/v1/datasets/dat_0"),
        ("DELETE", "/v1/datasets/dat_0"),
    ],
)
def test_what_is_not_there_is_not_found(client_on_both, method, path):
    answer = client_on_both.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")


def test_the_way_of_a_job_is_the_same_on_both_databases(client_on_both):
    client = client_on_both
    order = order_of(add_model(client), add_dataset(client)) | {"labels": {"größe": "ä\u2028b"}}
    job = client.post("/v1/jobs", json=order, headers={"Idempotency-Key": "k"}).json()
    assert job["labels"] == order["labels"]
    assert client.post("/v1/jobs", json=order, headers={"Idempotency-Key": "k"}).json() == job
    assert job["request"]["methods"] == list(DEFAULT_METHODS)
    held = claim(client.app.state.sessions)
    for key, loss in (("a", 0.2), ("b", None), ("c", 0.1)):
        record(client.app.state.sessions, held, key, loss=loss)
    url = f"/v1/jobs/{job['id']}/candidates"
    found = client.get(url, params={"sort": "loss"}).json()["data"]
    assert [candidate["costs"]["loss"] for candidate in found] == [0.1, 0.2, None]
    with client.app.state.sessions.begin() as session:
        lease.finish(session, held, JobState.SUCCEEDED, verdict="budget_met")
    assert client.get(job["links"]["self"]).json()["verdict"] == "budget_met"
    stream = client.get(job["links"]["events"], headers={"Accept": "text/event-stream"})
    assert "event: done\n" in stream.text
    assert client.delete(job["links"]["self"]).status_code == 204
    assert client.get(job["links"]["self"]).status_code == 404
