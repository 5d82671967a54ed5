"""Lists a page at a time."""

import re

import pytest
from fastapi import Request, Response
from hypothesis import given
from hypothesis import strategies as st

from service.pages import page
from tests.service.conftest import add_dataset, add_model, claim, order_of, record


def walk(client, path, **query):
    """Follow the Link headers; the ids of each page."""
    url, pages = client.build_request("GET", path, params=query).url, []
    while url:
        answer = client.get(url)
        document = answer.json()
        pages.append([item.get("id", item.get("sequence")) for item in document["data"]])
        link = re.fullmatch('<(.*)>; rel="next"', answer.headers.get("Link", ""))
        assert document["has_more"] == (link is not None) == (document["next"] is not None)
        url = link and link[1]
    return pages


def submit(client, order, times):
    return [client.post("/v1/jobs", json=order).json()["id"] for _ in range(times)]


def test_pages_hold_each_job_once(client_on_both):
    client = client_on_both
    order = order_of(add_model(client), add_dataset(client))
    ids = submit(client, order, 7)[::-1]
    assert walk(client, "/v1/jobs", limit=3) == [ids[:3], ids[3:6], ids[6:]]
    assert walk(client, "/v1/jobs", limit=7) == [ids]
    assert walk(client, "/v1/jobs", limit=6, state="queued") == [ids[:6], ids[6:]]
    assert walk(client, "/v1/jobs", state="failed") == [[]]


def test_a_list_that_grows_repeats_nothing(client, order):
    ids = submit(client, order, 4)[::-1]
    first = client.get("/v1/jobs", params={"limit": 2}).json()
    submit(client, order, 3)
    rest = client.get("/v1/jobs", params={"limit": 50, "after": first["next"]}).json()
    assert [job["id"] for job in first["data"] + rest["data"]] == ids


def test_models_and_datasets_are_paged(client):
    model, dataset = add_model(client), add_dataset(client)
    builtin = client.post("/v1/datasets", json={"builtin": "digits"}).json()["id"]
    assert walk(client, "/v1/models") == [[model]]
    assert walk(client, "/v1/datasets", limit=1) == [[builtin], [dataset]]


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/models", "/v1/datasets"])
def test_a_place_that_is_none_is_refused(client, path):
    answer = client.get(path, params={"after": "job_0"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-cursor")


COSTS = {
    name: dict(
        zip(("loss", "time_share", "parameter_share", "mac_share", "cost"), row, strict=True)
    )
    for name, row in {
        "a": (0.3, 0.5, 0.2, 0.6, 0.55),
        "b": (0.1, 0.9, 0.3, 0.5, 0.7),
        "c": (None, None, None, None, None),
        "d": (0.2, 0.7, 0.1, 0.4, 0.8),
    }.items()
}


@pytest.mark.parametrize(
    ("sort", "wanted"),
    [
        ("newest", "dcba"),
        ("cost", "abdc"),
        ("loss", "bdac"),
        ("latency", "adbc"),
        ("macs", "dbac"),
        ("parameters", "dabc"),
    ],
)
def test_candidates_are_sorted_by_what_they_cost(client, job_id, sort, wanted):
    held = claim(client.app.state.sessions)
    ids = {key: record(client.app.state.sessions, held, key, **c) for key, c in COSTS.items()}
    pages = walk(client, f"/v1/jobs/{job_id}/candidates", sort=sort, limit=3)
    assert pages == [[ids[key] for key in wanted[:3]], [ids[wanted[3]]]]


def test_a_candidate_shows_what_was_tried_and_found(client, job_id):
    held = claim(client.app.state.sessions)
    candidate = record(client.app.state.sessions, held, "a", **COSTS["a"])
    (shown,) = client.get(f"/v1/jobs/{job_id}/candidates").json()["data"]
    assert shown["id"] == candidate
    assert shown["job_id"] == job_id
    assert shown["point"] == [1, 2]
    assert shown["costs"] == COSTS["a"] | {"violation": 0.0}
    assert shown["measured"] == {"speedup": 2.0}
    assert (shown["sequence"], shown["attempt"], shown["seconds"]) == (1, 1, 0.5)


def test_the_front_is_shown_with_dense_in_its_place(client, job_id):
    held = claim(client.app.state.sessions)
    told = {
        "slow": {"loss": 0.1, "cost": 0.9, "violation": -0.1},
        "beaten": {"loss": 0.2, "cost": 0.95, "violation": 0.0},
        "fast": {"loss": 0.3, "cost": 0.5, "violation": 0.1, "mac_share": 0.25},
        "better": {"loss": -0.1, "cost": 1.5, "violation": -0.3},
    }
    ids = {key: record(client.app.state.sessions, held, key, **c) for key, c in told.items()}
    page = client.get(f"/v1/jobs/{job_id}/pareto").json()
    assert (page["has_more"], page["next"]) == (False, None)
    points = page["data"]
    assert [p["candidate"] for p in points] == [ids["better"], None, ids["slow"], ids["fast"]]
    assert [p["loss"] for p in points] == [-0.1, 0.0, 0.1, 0.3]
    assert [p["is_feasible"] for p in points] == [True, True, True, False]
    assert points[1]["plan"] == {"version": 1, "layers": {}}
    assert points[1]["cost"] == points[1]["time_share"] == points[1]["mac_share"] == 1.0
    assert (points[3]["cost"], points[3]["mac_share"]) == (0.5, 0.25)
    link = client.get(f"/v1/jobs/{job_id}").json()["links"]["pareto"]
    assert client.get(link).json() == page


def test_a_front_before_any_candidate_is_dense_alone_and_after_a_better_one_without(client, job_id):
    url = f"/v1/jobs/{job_id}/pareto"
    assert [point["candidate"] for point in client.get(url).json()["data"]] == [None]
    held = claim(client.app.state.sessions)
    better = record(client.app.state.sessions, held, "a", loss=0.0, cost=0.5)
    assert [point["candidate"] for point in client.get(url).json()["data"]] == [better]
    assert client.get("/v1/jobs/job_0/pareto").status_code == 404


FRONTS = [
    ([(0.1, 0.5), (0.2, 0.4), (0.3, 0.45), (0.05, 0.9)], [None, 3, 0, 1]),
    ([(0.1, 0.5), (0.1, 0.4), (0.2, 0.4)], [None, 1]),
    ([(0.1, 0.5), (0.1, 0.5)], [None, 0]),  # of equal ones the first
    ([(0.0, 1.0), (0.1, 1.0), (0.2, 3.0)], [None]),  # dense is as good
    ([(-0.1, 2.0), (-0.2, 3.0), (0.1, 1.5), (0.0, 0.9)], [1, 0, 3]),
    ([(None, None), (0.3, 0.2)], [None, 1]),
    ([], [None]),
]


@pytest.mark.parametrize(("told", "wanted"), FRONTS, ids=str)
def test_the_front_is_what_no_other_beats(client, job_id, told, wanted):
    held = claim(client.app.state.sessions)
    ids = {
        record(
            client.app.state.sessions,
            held,
            str(i),
            state="failed" if loss is None else "complete",
            loss=loss,
            cost=cost,
        ): i
        for i, (loss, cost) in enumerate(told)
    }
    points = client.get(f"/v1/jobs/{job_id}/pareto").json()["data"]
    assert [ids.get(point["candidate"]) for point in points] == wanted


def test_an_order_of_candidates_that_is_none_is_refused(client, job_id):
    answer = client.get(f"/v1/jobs/{job_id}/candidates", params={"sort": "beauty"})
    assert answer.json()["errors"][0]["parameter"] == "sort"


@given(count=st.integers(0, 12), limit=st.integers(1, 5))
def test_walking_any_list_finds_every_row_once(count, limit):
    rows, found, after = list(range(count)), [], None
    while True:
        start = 0 if after is None else int(after) + 1
        scope = {"type": "http", "path": "/rows", "query_string": b"limit=3&after=x", "headers": []}
        response = Response()
        answer = page(
            Request(scope), response, rows[start : start + limit + 1], limit=limit, show=int,
            place=str,
        )  # fmt: skip
        found += answer.data
        after = answer.next
        assert len(answer.data) == limit or not answer.has_more
        if after is None:
            assert "Link" not in response.headers
            break
        assert response.headers["Link"] == f'</rows?limit=3&after={after}>; rel="next"'
    assert found == rows
