"""Behind a real server: what only a real connection shows."""

import json
import re
import select
import shutil
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2
import numpy as np
import pytest

from service.settings import Settings
from service.store.blobs import Blobs
from service.store.session import make_engine, make_sessions
from tests.service.conftest import TOKEN, claim, order_of, publish
from tests.service.files import arrays_npz, weights

LIMIT = 64 << 20
SERVE = """
import sys, uvicorn
from pathlib import Path
from service.app import create_app
from service.settings import Settings
folder, token, limit, listening = sys.argv[1:]
settings = Settings(data_dir=Path(folder), token=token, max_upload_bytes=int(limit))
uvicorn.run(create_app(settings), fd=int(listening), log_level="warning")
"""
DEADLINE_SECONDS = 60


@pytest.fixture(scope="module")
def server(migrated_sqlite, tmp_path_factory):
    """A server of its own process: its port, its process, its settings."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copyfile(migrated_sqlite, folder / "ranksearch.db")
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        arguments = [str(folder), TOKEN, str(LIMIT), str(listening.fileno())]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", SERVE, *arguments],
                pass_fds=[listening.fileno()],
                stderr=log,
            )
        try:
            yield Server(listening.getsockname()[1], process, Settings(data_dir=folder))
        finally:
            process.terminate()
            process.wait(DEADLINE_SECONDS)
    assert "Traceback" not in (folder / "log").read_text()


class Server:
    def __init__(self, port, process, settings):
        self.port, self.process, self.settings = port, process, settings

    def unfinished(self):
        return list((self.settings.blobs / "tmp").iterdir())

    @contextmanager
    def request(self, method, path, **headers):
        """A connection on which the head of a request has been sent."""
        head = f"{method} {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {TOKEN}\r\n"
        head += "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        with socket.create_connection(("127.0.0.1", self.port), DEADLINE_SECONDS) as connection:
            connection.sendall(head.encode() + b"\r\n")
            yield connection


@pytest.fixture
def client(server):
    with httpx2.Client(
        base_url=f"http://127.0.0.1:{server.port}",
        headers={"Authorization": f"Bearer {TOKEN}"},
        timeout=DEADLINE_SECONDS,
        trust_env=False,
    ) as client:
        yield client


def read_answer(connection):
    """The head and the content of an answer that has a length."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(1 << 16)
    head, _, content = received.partition(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head)[1])
    while len(content) < length:
        content += connection.recv(1 << 16)
    return head, content


def chunk(content):
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


def send_until_answered(connection, piece):
    """Send pieces until there is an answer; how many bytes went, its head and its content."""
    deadline, sent = time.monotonic() + DEADLINE_SECONDS, 0
    while time.monotonic() < deadline:
        readable, writable, _ = select.select([connection], [connection], [], 1)
        if readable:
            return sent, *read_answer(connection)
        if writable:
            connection.sendall(chunk(piece))
            sent += len(piece)
    pytest.fail("no answer came")


def wait_until(condition):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


MODELS = "/v1/models?architecture=digits_cnn"


@pytest.mark.parametrize("path", [MODELS, "/v1/datasets"])
def test_an_upload_without_end_is_cut_off_at_the_limit(server, path):
    with server.request("POST", path, Transfer_Encoding="chunked") as connection:
        sent, head, content = send_until_answered(connection, bytes(1 << 20))
    assert head.startswith(b"HTTP/1.1 413 ")
    assert json.loads(content)["code"] == "file-too-large"
    assert LIMIT < sent < 2 * LIMIT
    assert server.unfinished() == []


def test_json_without_end_is_cut_off(server):
    headers = {"Transfer_Encoding": "chunked", "Content_Type": "application/json"}
    with server.request("POST", "/v1/jobs", **headers) as connection:
        sent, head, content = send_until_answered(connection, b" " * (1 << 16))
    assert head.startswith(b"HTTP/1.1 413 ")
    assert json.loads(content)["code"] == "file-too-large"
    assert sent < 16 << 20  # little is read, the rest is on its way


def test_who_asks_first_sends_nothing_that_is_too_long(server):
    headers = {"Content_Length": LIMIT + 1, "Expect": "100-continue"}
    with server.request("POST", MODELS, **headers) as connection:
        answer = connection.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 413 ")
    headers["Content_Length"] = LIMIT
    with server.request("POST", MODELS, **headers) as connection:
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 100 ")


def test_who_has_no_token_sends_nothing(server):
    headers = {"Content_Length": 9, "Expect": "100-continue", "Authorization": "Bearer other"}
    head = "POST /v1/models?architecture=vgg11 HTTP/1.1\r\nHost: test\r\n"
    head += "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE_SECONDS) as connection:
        connection.sendall(head.encode() + b"\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 401 ")


def test_an_upload_that_breaks_off_leaves_nothing(server):
    with server.request("POST", MODELS, Content_Length=LIMIT) as connection:
        connection.sendall(bytes(3 << 20))
        wait_until(server.unfinished)
    wait_until(lambda: not server.unfinished())


def test_an_upload_is_never_held_in_memory(server, client):
    def peak():
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10

    large = weights(w=np.ones(12 << 20, np.float32))
    pieces = (large[start : start + 99_999] for start in range(0, len(large), 99_999))
    assert client.post(MODELS, content=weights()).status_code == 201  # what is loaded is loaded
    before = peak()
    answer = client.post(MODELS, content=pieces)
    assert (answer.status_code, answer.json()["parameters"]) == (201, 12 << 20)
    assert peak() - before < len(large) / 3


def test_a_search_is_ordered_followed_and_fetched(server, client):
    model = client.post(MODELS, content=weights()).json()["id"]
    dataset = client.post("/v1/datasets", content=arrays_npz()).json()["id"]
    job = client.post("/v1/jobs", json=order_of(model, dataset)).json()
    engine = make_engine(server.settings.database)
    sessions = make_sessions(engine)
    accept = {"Accept": "text/event-stream"}
    with client.stream("GET", job["links"]["events"], headers=accept) as stream:
        events = (line for line in stream.iter_lines() if line.startswith("event: "))
        assert next(events) == "event: state"
        held = claim(sessions)  # only now, while the stream is open
        assert next(events) == "event: state"
        content = np.random.default_rng(0).bytes(3 << 20)
        publish(sessions, held, Blobs(server.settings.blobs), result=content)
        while next(events) != "event: artifact":
            pass
    engine.dispose()  # the reader has left before the end, which hurts nobody
    (artifact,) = client.get(job["links"]["artifacts"]).json()["data"]
    url = artifact["links"]["content"]
    with client.stream("GET", url) as broken:
        first = next(broken.iter_raw(100_000))
    etag = broken.headers["ETag"]
    rest = client.get(url, headers={"Range": f"bytes={len(first)}-", "If-Range": etag})
    assert rest.status_code == 206
    assert first + rest.content == content
