"""Orders that cannot be carried out: refused with the place of their mistake, and nothing kept."""

import json

import pytest

from tests.service.conftest import add_dataset, add_model, order_of
from tests.service.files import arrays, npz


@pytest.fixture(scope="module")
def client(lasting_client):
    return lasting_client


@pytest.fixture(scope="module")
def order(client):
    return order_of(add_model(client), add_dataset(client))


def changed(order, path, value):
    """A copy of an order with one place set, or taken out with Ellipsis."""
    order = {**order}
    first, *rest = path
    if rest:
        order[first] = changed(order.get(first, {}), rest, value)
    elif value is ...:
        del order[first]
    else:
        order[first] = value
    return order


BUDGET = ("budget", "max_loss")
WRONG = [
    (BUDGET, -0.1, "/budget"),
    (BUDGET, 100.1, "/budget"),
    (BUDGET, float("nan"), "/budget/max_loss"),
    (BUDGET, float("inf"), "/budget/max_loss"),
    (BUDGET, "0.5pp", "/budget/max_loss"),
    (BUDGET, None, "/budget/max_loss"),
    (BUDGET, ..., "/budget/max_loss"),
    (("budget",), ..., "/budget"),
    (("budget",), 0.5, "/budget"),
    (("budget", "unit"), "pp", "/budget/unit"),
    (("budget", "metric"), "f1", "/budget/metric"),
    (("budget", "confidence"), 0.5, "/budget/confidence"),
    (("budget", "confidence"), 1, "/budget/confidence"),
    (("budget", "maximum"), 1, "/budget/maximum"),
    (("budget",), {"max_loss": 1, "unit": "relative_percent", "metric": "mse"}, "/budget"),
    (("model",), ..., "/model"),
    (("model",), "mod_\0", "/model"),
    (("model",), 7, "/model"),
    (("dataset",), ..., "/dataset"),
    (("modle",), "mod_1", "/modle"),
    (("a/b~c",), 1, "/a~1b~0c"),
    (("objective", "batch"), 0, "/objective/batch"),
    (("objective", "device"), "tpu", "/objective/device"),
    (("objective", "minimise"), "size", "/objective/minimise"),
    (("objective",), {"minimise": "weighted"}, "/objective"),
    (("objective",), {"minimise": "macs", "weights": {"macs": 1}}, "/objective"),
    (("objective",), {"minimise": "weighted", "weights": {}}, "/objective/weights"),
    (
        ("objective",),
        {"minimise": "weighted", "weights": {"macs": -1, "latency": 1}},
        "/objective/weights/macs",
    ),
    (
        ("objective",),
        {"minimise": "weighted", "weights": {"time": 1}},
        "/objective/weights/time",
    ),
    (("methods",), [], ""),
    (("methods",), ["svd", "svd"], ""),
    (("methods",), ["svd", "cp9"], "/methods/1"),
    (("methods",), "svd", "/methods"),
    (("exclude",), ["conv1", "\0"], "/exclude/1"),
    (("modes",), [{"weight": "a", "inputs": [2, 2]}], "/modes/0/outputs"),
    (("modes",), [{"weight": "a", "inputs": [2, 2], "outputs": [4]}], "/modes/0"),
    (("modes",), [{"weight": "a", "inputs": [2], "outputs": [4]}] * 2, ""),
    (("search",), {"strategy": "random"}, "/search"),
    (("search",), {"population": 8}, "/search"),
    (("search",), {"strategy": "genetic", "population": 1}, "/search/population"),
    (("search",), {"strategy": "genetic", "populatoin": 8}, "/search/populatoin"),
    (("search",), {"strategy": "vbmf", "population": 8}, "/search/population"),
    (("recovery",), {"augment": {"flip": True}}, "/recovery"),
    (("recovery",), {"method": "distil", "augment": {"shift": 65}}, "/recovery/augment/shift"),
    (("recovery",), {"method": "distil", "augment": {"turn": 5}}, "/recovery/augment/turn"),
    (("limits", "max_seconds"), 0, "/limits/max_seconds"),
    (("limits", "max_seconds"), float("inf"), "/limits/max_seconds"),
    (("limits", "max_evaluations"), 1.5, "/limits/max_evaluations"),
    (("name",), "", "/name"),
    (("name",), "a\x1bb", "/name"),
    (("name",), "x" * 201, "/name"),
    (("labels",), {"a": 1}, "/labels/a"),
    (("labels",), {str(i): "" for i in range(33)}, "/labels"),
    (("priority",), 101, "/priority"),
    (("priority",), "high", "/priority"),
]


@pytest.mark.parametrize(("path", "value", "pointer"), WRONG, ids=str)
def test_an_order_that_cannot_be_meant_points_at_its_mistake(
    client, traces, order, *, path, value, pointer
):
    before = traces()
    content = json.dumps(changed(order, path, value))  # with NaN and Infinity, which are no JSON
    answer = client.post("/v1/jobs", content=content, headers={"Content-Type": "application/json"})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "invalid-request"), problem
    assert pointer in [error["pointer"] for error in problem["errors"]]
    assert all(error["detail"] and error["code"] for error in problem["errors"])
    assert traces() == before


def test_a_budget_without_its_unit_is_a_problem_of_its_own(client, traces, order):
    before = traces()
    answer = client.post("/v1/jobs", json=changed(order, ("budget", "unit"), ...))
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "budget-unit-missing")
    assert '"unit": "points"' in problem["detail"]
    assert problem["errors"][0]["pointer"] == "/budget/unit"
    assert traces() == before


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"a"', b"[" * 50_000])
def test_a_body_that_is_no_order_is_refused(client, traces, body):
    before = traces()
    answer = client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.json()["code"] == "invalid-request"
    assert traces() == before


def test_a_body_that_is_not_marked_as_json_gets_a_hint(client):
    answer = client.post("/v1/jobs", content=b"{}")
    assert answer.status_code == 422
    assert "Content-Type: application/json" in answer.json()["detail"]


def test_a_body_that_is_too_long_is_refused(client):
    body = b" " * (1 << 20) + b"{}"
    answer = client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "file-too-large")


@pytest.mark.parametrize("name", ["model", "dataset"])
def test_an_order_for_what_is_not_there_is_refused(client, traces, order, name):
    before = traces()
    answer = client.post("/v1/jobs", json=changed(order, (name,), "mod_0"))
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    assert name in answer.json()["detail"]
    assert traces() == before


def test_a_metric_that_needs_labels_is_refused_without_them(client, model_id):
    images = npz({"images": arrays()["images"]})
    order = order_of(model_id, client.post("/v1/datasets", content=images).json()["id"])
    for metric in ("top1", "top5", "loss"):
        answer = client.post("/v1/jobs", json=changed(order, ("budget", "metric"), metric))
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (422, "labels-missing")
        assert problem["errors"][0]["pointer"] == "/budget/metric"
        assert "agreement" in problem["detail"]
    for metric in ("agreement", "mse"):
        answer = client.post("/v1/jobs", json=changed(order, ("budget", "metric"), metric))
        assert answer.status_code == 202
