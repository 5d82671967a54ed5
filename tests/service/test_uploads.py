"""The body of an upload: its limit, its digest, and the disk it goes to."""

import base64
import errno
import hashlib

import pytest

from service.store.blobs import BlobWriter
from tests.service.files import arrays_npz, weights

MODELS = {"url": "/v1/models", "params": {"architecture": "digits_cnn"}}
UPLOADS = [
    pytest.param({**MODELS, "content": weights()}, id="model"),
    pytest.param({"url": "/v1/datasets", "content": arrays_npz()}, id="dataset"),
]


def in_pieces(size, piece=1000):
    """A body without Content-Length."""
    for start in range(0, size, piece):
        yield b"\0" * min(piece, size - start)


def test_an_announced_length_beyond_the_limit_is_refused_unread(client, settings, traces):
    def body():
        pytest.fail("the body was read")
        yield b""

    length = {"Content-Length": str(settings.max_upload_bytes + 1)}
    answer = client.post(**MODELS, content=body(), headers=length)
    assert (answer.status_code, answer.json()["code"]) == (413, "file-too-large")
    assert traces() == set()


def test_a_body_that_grows_beyond_the_limit_is_refused(client, settings, traces):
    answer = client.post(**MODELS, content=in_pieces(settings.max_upload_bytes + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "file-too-large")
    assert str(settings.max_upload_bytes) in answer.json()["detail"]
    assert traces() == set()


def test_a_body_of_just_the_limit_is_looked_at(client, settings):
    answer = client.post(**MODELS, content=in_pieces(settings.max_upload_bytes))
    assert answer.json()["code"] == "unsafe-file"


def test_a_length_that_is_a_lie_does_not_lift_the_limit(client, settings, traces):
    answer = client.post(
        **MODELS,
        content=in_pieces(settings.max_upload_bytes + 1),
        headers={"Content-Length": "10"},
    )
    assert answer.status_code == 413
    assert traces() == set()


def digest_of(content, algorithm="sha256"):
    return base64.b64encode(hashlib.new(algorithm, content).digest()).decode()


@pytest.mark.parametrize("upload", UPLOADS)
@pytest.mark.parametrize("header", ["Content-Digest", "Repr-Digest"])
def test_a_digest_that_fits_is_taken(client, upload, header):
    value = f"sha-512=:{digest_of(b'', 'sha512')}:, sha-256=:{digest_of(upload['content'])}:"
    assert client.post(**upload, headers={header: value}).status_code == 201


@pytest.mark.parametrize("upload", UPLOADS)
@pytest.mark.parametrize("header", ["Content-Digest", "Repr-Digest"])
def test_a_digest_that_does_not_fit_is_refused(client, traces, upload, header):
    value = f"sha-256=:{digest_of(upload['content'] + b'!')}:"
    answer = client.post(**upload, headers={header: value})
    assert (answer.status_code, answer.json()["code"]) == (422, "checksum-mismatch")
    assert hashlib.sha256(upload["content"]).hexdigest() in answer.json()["detail"]
    assert traces() == set()


@pytest.mark.parametrize("value", ["sha-256=:AAAA:", "sha-256=:not base64!:", "sha-256=::"])
def test_a_digest_that_is_none_is_refused(client, traces, value):
    answer = client.post(**MODELS, content=weights(), headers={"Repr-Digest": value})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")
    assert answer.json()["errors"][0]["parameter"] == "repr-digest"
    assert traces() == set()


def test_a_digest_of_an_unknown_algorithm_is_left_aside(client):
    answer = client.post(**MODELS, content=weights(), headers={"Repr-Digest": "crc32c=:AAAAAA==:"})
    assert answer.status_code == 201


def test_an_encoded_body_is_refused(client, traces):
    answer = client.post(**MODELS, content=weights(), headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported-encoding")
    assert traces() == set()


@pytest.mark.parametrize("upload", UPLOADS)
@pytest.mark.parametrize("step", ["write", "commit"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_nothing_behind(client, traces, monkeypatch, *, upload, step, number):
    def full(*_):
        raise OSError(number, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(BlobWriter, step, full)
        answer = client.post(**upload)
    assert (answer.status_code, answer.json()["code"]) == (507, "storage-full")
    assert answer.json()["retryable"] is True
    assert traces() == set()
    assert client.post(**upload).status_code == 201


def test_what_is_wrong_in_the_query_is_told_before_the_body_is_read(client, traces):
    def body():
        pytest.fail("the body was read")
        yield b""

    answer = client.post(
        "/v1/models?architecture=", content=body(), headers={"Content-Length": "9"}
    )
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["parameter"], error["code"]) == ("architecture", "string_too_short")
    assert traces() == set()
