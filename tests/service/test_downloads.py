"""Files of a result: whole, in part, or not again."""

import base64
import hashlib

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from service.downloads import find_range
from tests.service.conftest import add_dataset, add_model, claim, order_of, publish

CONTENT = bytes(range(256)) * 5 + b"the end"
SIZE = len(CONTENT)
DIGEST = hashlib.sha256(CONTENT)
ETAG = f'"sha256-{DIGEST.hexdigest()}"'


@pytest.fixture(scope="module")
def client(lasting_client):
    return lasting_client


@pytest.fixture(scope="module")
def job_id(client):
    """A job with a result of four files."""
    order = order_of(add_model(client), add_dataset(client))
    job_id = client.post("/v1/jobs", json=order).json()["id"]
    names = {"model.safetensors": CONTENT, "empty": b"", 'a "b"\\ü.txt': b"odd", "gone": b"gone"}
    state = client.app.state
    publish(state.sessions, claim(state.sessions), state.blobs, **names)
    return job_id


@pytest.fixture(scope="module")
def urls(client, job_id):
    artifacts = client.get(f"/v1/jobs/{job_id}/artifacts").json()["data"]
    return {artifact["name"]: artifact["links"]["content"] for artifact in artifacts}


@pytest.fixture(scope="module")
def url(urls):
    return urls["model.safetensors"]


def test_the_artifacts_of_a_job_are_listed_by_name(client, job_id):
    answer = client.get(f"/v1/jobs/{job_id}/artifacts").json()
    assert [a["name"] for a in answer["data"]] == [
        'a "b"\\ü.txt', "empty", "gone", "model.safetensors",
    ]  # fmt: skip
    assert answer["has_more"] is False
    assert answer["data"][3]["sha256"] == DIGEST.hexdigest()
    assert answer["data"][3]["size_bytes"] == SIZE


def test_a_whole_file_comes_with_all_that_is_known_of_it(client, url):
    answer = client.get(url)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    headers = answer.headers
    assert headers["ETag"] == ETAG
    assert headers["Content-Length"] == str(SIZE)
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert headers["Content-Disposition"] == "attachment; filename*=UTF-8''model.safetensors"
    assert headers["X-Content-Type-Options"] == "nosniff"
    digest = base64.b64decode(headers["Repr-Digest"].removeprefix("sha-256=:").removesuffix(":"))
    assert digest == DIGEST.digest()


def test_head_says_what_get_says_without_the_content(client, url):
    head, got = client.head(url), client.get(url)
    assert (head.status_code, head.content) == (200, b"")
    own = {"x-request-id"}
    assert {k: v for k, v in head.headers.items() if k not in own} == {
        k: v for k, v in got.headers.items() if k not in own
    }


def test_head_leaves_a_range_aside(client, url):
    head = client.head(url, headers={"Range": "bytes=0-4"})
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(SIZE))


def test_a_name_of_any_characters_is_sent_as_it_is(client, urls):
    header = client.get(urls['a "b"\\ü.txt']).headers["Content-Disposition"]
    assert header == "attachment; filename*=UTF-8''a%20%22b%22%5C%C3%BC.txt"


PARTS = {
    "bytes=0-0": (0, 0),
    "bytes=0-9": (0, 9),
    "bytes=5-": (5, SIZE - 1),
    f"bytes={SIZE - 1}-": (SIZE - 1, SIZE - 1),
    f"bytes=0-{SIZE - 1}": (0, SIZE - 1),
    f"bytes=7-{SIZE + 100}": (7, SIZE - 1),
    f"bytes=7-{10**17}": (7, SIZE - 1),
    "bytes=-1": (SIZE - 1, SIZE - 1),
    f"bytes=-{SIZE}": (0, SIZE - 1),
    f"bytes=-{SIZE + 5}": (0, SIZE - 1),
    "Bytes=2-3": (2, 3),
}


@pytest.mark.parametrize(("header", "part"), PARTS.items(), ids=str)
def test_one_range_is_answered(client, url, header, part):
    first, last = part
    answer = client.get(url, headers={"Range": header})
    assert (answer.status_code, answer.content) == (206, CONTENT[first : last + 1])
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{SIZE}"
    assert answer.headers["Content-Length"] == str(last + 1 - first)
    assert answer.headers["ETag"] == ETAG


@pytest.mark.parametrize(
    "header",
    [
        "bytes=9-3", "bytes=-", "bytes=", "bytes=a-b", "bytes=1", "bytes=0-1,5-6", "bytes=--5",
        "bytes=+1-2", "bytes=1.0-2", "items=0-4", "0-4", "", "bytes=0x1-0x2", "bytes=1-2;q=1",
    ],
)  # fmt: skip
def test_a_range_that_is_none_of_ours_is_left_aside(client, url, header):
    answer = client.get(url, headers={"Range": header})
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert "Content-Range" not in answer.headers


@pytest.mark.parametrize("header", [f"bytes={SIZE}-", f"bytes={SIZE + 9}-{SIZE + 10}", "bytes=-0"])
def test_a_range_outside_the_file_is_not_satisfiable(client, url, header):
    answer = client.get(url, headers={"Range": header})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "range-not-satisfiable"


def test_an_empty_file_has_no_range(client, urls):
    empty = urls["empty"]
    assert client.get(empty).content == b""
    assert client.get(empty, headers={"Range": "bytes=-5"}).status_code == 200
    refused = client.get(empty, headers={"Range": "bytes=0-"})
    assert (refused.status_code, refused.headers["Content-Range"]) == (416, "bytes */0")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("tag", [ETAG, f"W/{ETAG}", f'"other", {ETAG}', "*", f'W/"x",W/{ETAG}'])
def test_what_the_client_has_is_not_sent_again(client, url, method, tag):
    answer = client.request(method, url, headers={"If-None-Match": tag, "Range": "bytes=0-4"})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["ETag"] == ETAG
    assert "immutable" in answer.headers["Cache-Control"]
    assert "Content-Length" not in answer.headers


@pytest.mark.parametrize("tag", ['"other"', "other", "", ETAG.strip('"'), ETAG[:-2] + '"'])
def test_what_the_client_does_not_have_is_sent(client, url, tag):
    assert client.get(url, headers={"If-None-Match": tag}).status_code == 200


def test_a_download_that_broke_off_goes_on(client, url):
    rest = client.get(url, headers={"Range": "bytes=100-", "If-Range": ETAG})
    assert (rest.status_code, CONTENT[:100] + rest.content) == (206, CONTENT)


@pytest.mark.parametrize(
    "if_range", [f"W/{ETAG}", '"other"', "Wed, 21 Oct 2026 07:28:00 GMT", "*", f'{ETAG}, "b"']
)
def test_a_download_of_something_else_begins_anew(client, url, if_range):
    answer = client.get(url, headers={"Range": "bytes=100-", "If-Range": if_range})
    assert (answer.status_code, answer.content) == (200, CONTENT)
    outside = client.get(url, headers={"Range": f"bytes={SIZE}-", "If-Range": if_range})
    assert outside.status_code == 200


def test_a_download_of_any_size_is_put_together_from_any_pieces(client, url):
    pieces, start = [], 0
    for length in (1, 2, 700, 3, 10**6):
        answer = client.get(url, headers={"Range": f"bytes={start}-{start + length - 1}"})
        pieces.append(answer.content)
        start += len(answer.content)
    assert b"".join(pieces) == CONTENT


def test_a_file_that_has_vanished_is_a_problem_before_the_answer_begins(client, urls):
    state = client.app.state
    state.blobs.path(hashlib.sha256(b"gone").hexdigest()).unlink()
    told = TestClient(client.app, headers=client.headers, raise_server_exceptions=False)
    answer = told.get(urls["gone"])
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert str(state.settings.data_dir) not in answer.text


@pytest.mark.parametrize("path", ["/v1/artifacts/art_0/content", "/v1/jobs/job_0/artifacts"])
def test_what_is_not_there_is_not_found(client, path):
    assert client.get(path).json()["code"] == "not-found"


@given(size=st.integers(0, 50), first=st.integers(0, 60), last=st.integers(0, 60))
def test_a_closed_range_is_a_slice(size, first, last):
    found = find_range(f"bytes={first}-{last}", size)
    if last < first:
        assert found is None
    else:
        content = bytes(range(size))
        assert bytes(content[i] for i in found) == content[first : last + 1]


@given(size=st.integers(1, 50), number=st.integers(0, 60))
def test_an_open_range_and_a_suffix_are_slices(size, number):
    content = bytes(range(size))
    assert bytes(content[i] for i in find_range(f"bytes={number}-", size)) == content[number:]
    suffix = content[-number:] if number else b""
    assert bytes(content[i] for i in find_range(f"bytes=-{number}", size)) == suffix


@given(header=st.text(), size=st.integers(0, 50))
def test_any_header_is_a_range_within_the_file_or_none(header, size):
    for value in (header, f"bytes={header}"):
        found = find_range(value, size)
        assert found is None or all(0 <= i < size for i in found)
