"""The client against the real application, over a real socket."""

import contextlib
import hashlib
import socket
import threading
from collections.abc import Iterator

import httpx2
import pytest
from fastapi import FastAPI

from search.config import Budget
from service.client import Client, DownloadError, RefusedError, UnreachableError
from service.schemas import ArtifactOut, JobOrder
from service.settings import Settings
from service.store import lease, progress
from service.store.blobs import Blobs
from service.store.tables import JobState
from tests.service.conftest import TOKEN, claim, publish, record
from tests.service.files import arrays_npz, weights
from tests.service.live import serving

CONTENT = bytes(range(256)) * 4000
BUDGET = Budget(max_loss=0.5, unit="points")


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    with serving(app) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, TOKEN) as client:
        yield client


@pytest.fixture
def job_id(client: Client, tmp_path) -> str:
    return client.submit(order(client, tmp_path)).id


@pytest.fixture
def artifact(client: Client, app: FastAPI, settings: Settings, job_id: str) -> ArtifactOut:
    """A file of the job's result, with CONTENT."""
    publish(app.state.sessions, claim(app.state.sessions), Blobs(settings.blobs), model=CONTENT)
    (artifact,) = client.artifacts(job_id)
    return artifact


def order(client: Client, folder) -> JobOrder:
    model_file, data_file = folder / "model.safetensors", folder / "data.npz"
    model_file.write_bytes(weights())
    data_file.write_bytes(arrays_npz())
    model = client.upload_model(model_file, architecture="digits_cnn")
    return JobOrder(model=model.id, dataset=client.upload_dataset(data_file).id, budget=BUDGET)


class Cut(httpx2.BaseTransport):
    """The real way to the service, on which each answer's body breaks off after some bytes."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths
        self.ranges: list[str | None] = []
        self._real = httpx2.HTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = self._real.handle_request(request)
        if request.url.path.endswith("/content"):
            self.ranges.append(request.headers.get("range"))
            if self.lengths:
                assert isinstance(answer.stream, httpx2.SyncByteStream)
                answer.stream = Broken(answer.stream, self.lengths.pop(0))
        return answer

    def close(self) -> None:
        self._real.close()


class Broken(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream, length: int) -> None:
        self._stream = stream
        self._length = length

    def __iter__(self) -> Iterator[bytes]:
        left = self._length
        for chunk in self._stream:
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                raise httpx2.ReadError("the connection broke")

    def close(self) -> None:
        self._stream.close()


def test_an_upload_arrives_as_it_was_sent(client, tmp_path):
    path = tmp_path / "trained.safetensors"
    path.write_bytes(weights())
    model = client.upload_model(path, architecture="digits_cnn")
    assert model.sha256 == hashlib.sha256(weights()).hexdigest()
    assert (model.name, model.architecture) == ("trained.safetensors", "digits_cnn")


def test_a_dataset_keeps_its_scaling(client, tmp_path):
    path = tmp_path / "data.npz"
    path.write_bytes(arrays_npz())
    dataset = client.upload_dataset(path, mean=(0.1,), std=(0.25,))
    assert (dataset.description["mean"], dataset.description["std"]) == ([0.1], [0.25])
    assert client.upload_dataset(path).description["mean"] is None


def test_a_builtin_set_needs_no_file(client):
    assert client.builtin_dataset("digits").builtin == "digits"


def test_a_refusal_tells_title_and_detail(client, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(weights())
    with pytest.raises(RefusedError, match=r"No such architecture: .*'digit_cnn' came") as caught:
        client.upload_model(path, architecture="digit_cnn")
    assert (caught.value.status, caught.value.code) == (422, "unsupported-architecture")
    assert not caught.value.retryable


def test_a_refusal_in_the_middle_of_an_upload_is_heard(client, settings, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(weights() + bytes(16 * settings.max_upload_bytes))
    with pytest.raises(RefusedError) as caught:
        client.upload_model(path, architecture="digits_cnn")
    assert caught.value.code == "file-too-large"


def test_another_token_is_refused(url):
    with Client(url, "another") as stranger, pytest.raises(RefusedError, match="another bearer"):
        stranger.jobs()


def test_an_answer_that_is_no_problem_document_is_refused_in_words():
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(502, text="<html>Bad gateway</html>", request=request)

    with (
        Client("http://elsewhere", transport=httpx2.MockTransport(answer)) as client,
        pytest.raises(RefusedError, match="502 from http://elsewhere/v1/jobs"),
    ):
        client.jobs()


def test_nobody_there_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with (
        Client(f"http://127.0.0.1:{port}") as client,
        pytest.raises(UnreachableError, match=f"127.0.0.1:{port}"),
    ):
        client.wait_until_up(0)


def test_one_key_makes_one_job(client, tmp_path):
    same = order(client, tmp_path)
    first = client.submit(same, key="once")
    assert client.submit(same, key="once").id == first.id
    assert client.submit(same).id != first.id


def test_an_order_arrives_whole(client, tmp_path):
    job = client.submit(order(client, tmp_path))
    assert client.job(job.id).request["budget"] == {
        "max_loss": 0.5,
        "unit": "points",
        "metric": "top1",
        "confidence": 0.95,
    }


def test_jobs_come_newest_first(client, tmp_path):
    ids = [client.submit(order(client, tmp_path)).id for _ in range(3)]
    client.cancel(ids[1])
    assert [job.id for job in client.jobs(limit=2).data] == [ids[2], ids[1]]
    assert [job.id for job in client.jobs(state=JobState.QUEUED).data] == [ids[2], ids[0]]


def test_candidates_of_all_pages_come(client, app, job_id):
    held = claim(app.state.sessions)
    for number in range(203):
        record(app.state.sessions, held, f"key {number}")
    assert [c.sequence for c in client.candidates(job_id)] == list(range(203, 0, -1))


def test_the_front_comes_with_dense(client, app, job_id):
    held = claim(app.state.sessions)
    fast = record(app.state.sessions, held, "a", loss=0.25, cost=0.5)
    assert [(p.candidate, p.cost) for p in client.pareto(job_id)] == [(None, 1.0), (fast, 0.5)]


def test_following_shows_each_change_and_ends_with_the_job(client, app, job_id):
    seen = []
    for job in client.follow(job_id, poll_seconds=0):
        seen.append((job.state, job.phase))
        if job.state is JobState.QUEUED:
            held = claim(app.state.sessions)
        elif job.phase == "searching":
            with app.state.sessions.begin() as session:
                lease.finish(session, held, JobState.SUCCEEDED, verdict="no_gain")
        elif job.state is JobState.RUNNING:
            with app.state.sessions.begin() as session:
                progress.phase(session, held, "searching")
    assert seen == [
        (JobState.QUEUED, None),
        (JobState.RUNNING, "loading"),
        (JobState.RUNNING, "searching"),
        (JobState.SUCCEEDED, None),
    ]


def test_following_outlives_a_pause_of_the_service(url, job_id):
    class Pausing(httpx2.HTTPTransport):
        refusals = 3

        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            if self.refusals:
                self.refusals -= 1
                raise httpx2.ConnectError("refused")
            return super().handle_request(request)

    with Client(url, TOKEN, transport=Pausing()) as client:
        assert next(client.follow(job_id, poll_seconds=0)).id == job_id
    with Client(url, TOKEN, transport=Pausing()) as client, pytest.raises(UnreachableError):
        next(client.follow(job_id, poll_seconds=0, patience_seconds=0))


def test_following_ends_where_there_is_no_such_job(client):
    with pytest.raises(RefusedError, match="job"):
        next(client.follow("job_of_nobody"))


def test_a_download_that_broke_off_goes_on_where_it_stopped(url, artifact, tmp_path):
    road = Cut([1000, 50_000])
    with Client(url, TOKEN, transport=road) as client:
        path = client.download(artifact, tmp_path / "out")
    assert path.read_bytes() == CONTENT
    assert road.ranges == [None, "bytes=1000-", "bytes=51000-"]
    assert [file.name for file in path.parent.iterdir()] == ["model"]


def test_a_download_that_keeps_breaking_is_unreachable_and_can_be_taken_up(
    url, client, artifact, tmp_path
):
    with Client(url, TOKEN, transport=Cut([10] * 5)) as broken, pytest.raises(UnreachableError):
        broken.download(artifact, tmp_path / "out")
    assert (tmp_path / "out/model.part").read_bytes() == CONTENT[:50]
    assert client.download(artifact, tmp_path / "out").read_bytes() == CONTENT


@pytest.mark.parametrize("begun", [b"not what was sent", CONTENT + b"more"], ids=["other", "long"])
def test_a_file_with_another_digest_is_not_kept(client, artifact, tmp_path, begun):
    (tmp_path / "model.part").write_bytes(begun)
    with pytest.raises(DownloadError, match=artifact.sha256):
        client.download(artifact, tmp_path)
    assert not {path.name for path in tmp_path.iterdir()} & {"model", "model.part"}
    assert client.download(artifact, tmp_path).read_bytes() == CONTENT


def test_an_empty_file_is_a_file(client, app, job_id, tmp_path, settings):
    publish(app.state.sessions, claim(app.state.sessions), Blobs(settings.blobs), empty=b"")
    (artifact,) = client.artifacts(job_id)
    assert client.download(artifact, tmp_path).read_bytes() == b""


def test_a_name_that_leads_out_of_the_folder_is_refused(client, app, job_id, tmp_path, settings):
    held = claim(app.state.sessions)
    publish(app.state.sessions, held, Blobs(settings.blobs), **{"../model": CONTENT})
    (artifact,) = client.artifacts(job_id)
    with pytest.raises(DownloadError, match="plain name"):
        client.download(artifact, tmp_path / "out")


@pytest.mark.parametrize(
    ("address", "is_asked"), [("http://127.0.0.1:9", False), ("http://far.example", True)]
)
def test_a_proxy_of_the_environment_is_asked_for_others_alone(monkeypatch, address, is_asked):
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        calls: list[bytes] = []
        answering = threading.Thread(target=_hang_up, args=(proxy, calls))
        answering.start()
        with Client(address) as client, pytest.raises(UnreachableError):
            client.job("job_x")
        proxy.shutdown(socket.SHUT_RDWR)
        answering.join()
    assert bool(calls) == is_asked


def _hang_up(proxy: socket.socket, calls: list[bytes]) -> None:
    """Note what is asked until the socket is closed."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = proxy.accept()
            with connection:
                calls.append(connection.recv(1000))
