"""A client of the HTTP API, for Python and for the command line.

    with Client("http://127.0.0.1:8000", token) as client:
        model = client.upload_model(Path("model.safetensors"), architecture="resnet18")
        dataset = client.upload_dataset(Path("data.npz"))
        job = client.submit(JobOrder(model=model.id, dataset=dataset.id, budget=budget))
        for job in client.follow(job.id):
            print(job.state, job.phase, job.best)
        for artifact in client.artifacts(job.id):
            client.download(artifact, Path("result"))

Errors:

    ServiceError
    ├── UnreachableError    nobody answers, or not for long enough
    ├── RefusedError        a problem that the service described (RFC 9457)
    └── DownloadError       what arrived is not what was announced
"""

import base64
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self
from uuid import uuid4

import httpx2
from pydantic import TypeAdapter

from service.schemas import (
    ArtifactOut,
    CandidateOut,
    DatasetOut,
    FrontPointOut,
    JobOrder,
    JobOut,
    ModelOut,
    Page,
)

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
DOWNLOADS: Final = 5  # beginnings of one download, each where the one before was cut off
CHUNK_BYTES: Final = 1 << 20
POLL_SECONDS: Final = 0.5
# A long answer time: the service reads an upload once more before it accepts it.
TIMEOUT: Final = httpx2.Timeout(60.0, connect=10.0, read=600.0)

_order = TypeAdapter(JobOrder)


class ServiceError(Exception):
    """The root of what this client raises on purpose."""


class UnreachableError(ServiceError):
    """Nobody answers, or not for long enough."""


class RefusedError(ServiceError):
    """A problem that the service described (RFC 9457)."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.code = str(problem.get("code", ""))
        self.retryable = bool(problem.get("retryable", False))
        super().__init__(f"{problem.get('title', 'refused')}: {problem.get('detail', status)}")


class DownloadError(ServiceError):
    """What arrived is not what was announced."""


class Client:
    """One connection to one service; a context manager, or to be closed by `close`."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            url: where the service is, such as http://127.0.0.1:8000.
            token: what it printed at its first start; None where it asks for none.
            transport: another way to the service, for tests.
        """
        address = httpx2.URL(url)
        is_local = address.host in LOOPBACK  # no proxy stands between us and ourselves
        self._http = httpx2.Client(
            base_url=address,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=TIMEOUT,
            transport=transport,
            trust_env=not is_local,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back."""
        self._http.close()

    def wait_until_up(self, seconds: float) -> None:
        """Return as soon as the service answers.

        Raises:
            UnreachableError: it did not within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                self._send("GET", "/healthz")
            except UnreachableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(POLL_SECONDS / 2)
            else:
                return

    def upload_model(
        self, path: Path, *, architecture: str | None = None, name: str | None = None
    ) -> ModelOut:
        """Send a trained network.

        Args:
            path: its weights, safetensors or a state dict; or a program, .pt2 or .onnx.
            architecture: that the weights belong to; a program has none.
            name: shown in lists; the file's own where none is given.
        """
        parameters = {"name": name or path.name}
        if architecture is not None:
            parameters["architecture"] = architecture
        return ModelOut.model_validate(self._upload("/v1/models", path, parameters))

    def upload_dataset(
        self,
        path: Path,
        *,
        name: str | None = None,
        inputs: Sequence[str] = ("images",),
        transforms: Sequence[Mapping[str, Any]] = (),
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> DatasetOut:
        """Send data: arrays as npz, npy or safetensors, or pictures in a zip or tar archive.

        Args:
            path: the file; arrays are named after the inputs, `labels`, and `train_...`.
            name: shown in lists; the file's own where none is given.
            inputs: names of the arrays that the network takes, in the order of its arguments.
            transforms: of images, such as {"resize": 256} and {"center_crop": 224}.
            mean: subtracted from each channel; of uint8 images after division by 255.
            std: what each channel is divided by.
        """
        parameters = {
            "name": name or path.name,
            "inputs": ",".join(inputs),
            "transforms": json.dumps(list(transforms)),
        }
        for key, values in (("mean", mean), ("std", std)):
            if values is not None:
                parameters[key] = ",".join(map(str, values))
        return DatasetOut.model_validate(self._upload("/v1/datasets", path, parameters))

    def builtin_dataset(
        self,
        name: str,
        *,
        transforms: Sequence[Mapping[str, Any]] = (),
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> DatasetOut:
        """Choose a set that the service brings along: digits, mnist or cifar10.

        What else is given means what it does for a file.
        """
        order = {"builtin": name, "transforms": list(transforms), "mean": mean, "std": std}
        answer = self._send("POST", "/v1/datasets", json=order)
        return DatasetOut.model_validate_json(answer.content)

    def submit(self, order: JobOrder, *, key: str | None = None) -> JobOut:
        """Queue a search; sent again with the same `key`, the same job is answered."""
        answer = self._send(
            "POST",
            "/v1/jobs",
            json=_order.dump_python(order, mode="json"),
            headers={"Idempotency-Key": key or str(uuid4())},
        )
        return JobOut.model_validate_json(answer.content)

    def job(self, job_id: str) -> JobOut:
        """How a job stands."""
        return JobOut.model_validate_json(self._send("GET", f"/v1/jobs/{job_id}").content)

    def jobs(
        self, *, limit: int = 50, after: str | None = None, state: str | None = None
    ) -> Page[JobOut]:
        """One page of the jobs, newest first."""
        asked = {"limit": limit, "after": after, "state": state}
        parameters = {name: value for name, value in asked.items() if value is not None}
        answer = self._send("GET", "/v1/jobs", params=parameters)
        return Page[JobOut].model_validate_json(answer.content)

    def candidates(self, job_id: str) -> Iterator[CandidateOut]:
        """Every plan that was evaluated for a job, newest first."""
        return self._pages(Page[CandidateOut], f"/v1/jobs/{job_id}/candidates")

    def pareto(self, job_id: str) -> list[FrontPointOut]:
        """What no other candidate beats in loss and cost, dense among them, by rising loss."""
        answer = self._send("GET", f"/v1/jobs/{job_id}/pareto")
        return Page[FrontPointOut].model_validate_json(answer.content).data

    def artifacts(self, job_id: str) -> list[ArtifactOut]:
        """The files of a job's result; empty while there are none."""
        answer = self._send("GET", f"/v1/jobs/{job_id}/artifacts")
        return Page[ArtifactOut].model_validate_json(answer.content).data

    def cancel(self, job_id: str) -> JobOut:
        """End a job; what it has found so far is kept."""
        return JobOut.model_validate_json(self._send("POST", f"/v1/jobs/{job_id}/cancel").content)

    def follow(
        self, job_id: str, *, poll_seconds: float = POLL_SECONDS, patience_seconds: float = 60.0
    ) -> Iterator[JobOut]:
        """The job as it is, then each time it has changed, until it has ended.

        Raises:
            UnreachableError: the service was away for longer than `patience_seconds`.
        """
        etag, heard_at = "", time.monotonic()
        while True:
            try:
                answer = self._send("GET", f"/v1/jobs/{job_id}", headers={"If-None-Match": etag})
            except (UnreachableError, RefusedError) as error:
                if isinstance(error, RefusedError) and not error.retryable:
                    raise
                if time.monotonic() - heard_at > patience_seconds:
                    raise
            else:
                heard_at = time.monotonic()
                if answer.status_code != httpx2.codes.NOT_MODIFIED:
                    etag = answer.headers.get("etag", "")
                    job = JobOut.model_validate_json(answer.content)
                    yield job
                    if job.state.is_terminal:
                        return
            time.sleep(poll_seconds)

    def download(self, artifact: ArtifactOut, folder: Path) -> Path:
        """Fetch a file into `folder`; what an earlier call has begun is continued.

        Raises:
            DownloadError: the file is not the one that was announced; nothing is left of it.
        """
        if Path(artifact.name).name != artifact.name:
            raise DownloadError(f"a file named {artifact.name!r} came, a plain name was wanted")
        folder.mkdir(parents=True, exist_ok=True)
        path, part = folder / artifact.name, folder / f"{artifact.name}.part"
        for begun in range(1, DOWNLOADS + 1):
            try:
                self._continue(artifact, part)
                break
            except UnreachableError:
                if begun == DOWNLOADS:
                    raise
        if (digest := _sha256(part)) != artifact.sha256:
            part.unlink()
            raise DownloadError(
                f"{artifact.name} with SHA-256 {digest} came, {artifact.sha256} was wanted: "
                "download it again"
            )
        part.replace(path)
        return path

    def _continue(self, artifact: ArtifactOut, part: Path) -> None:
        """Append to `part` what it lacks."""
        have = part.stat().st_size if part.exists() else 0
        if have >= artifact.size_bytes > 0:
            return
        tag = f'"sha256-{artifact.sha256}"'
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": tag}
        try:
            with self._http.stream("GET", artifact.links["content"], headers=headers) as answer:
                if answer.is_error:
                    answer.read()
                    raise _refusal(answer)
                is_rest = answer.status_code == httpx2.codes.PARTIAL_CONTENT
                with part.open("ab" if is_rest else "wb") as file:
                    for chunk in answer.iter_raw():
                        file.write(chunk)
        except httpx2.TransportError as error:
            raise _unreachable(self._http.base_url, error) from error

    def _upload(self, path: str, file: Path, parameters: dict[str, str]) -> Any:
        """Stream a file as the body; the service compares it with its digest."""
        digest = base64.b64encode(bytes.fromhex(_sha256(file))).decode()
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(file.stat().st_size),
            "Repr-Digest": f"sha-256=:{digest}:",
        }
        with file.open("rb") as opened:
            answer = self._send(
                "POST", path, params=parameters, headers=headers, content=_chunks(opened)
            )
        return answer.json()

    def _pages(self, page: type[Page[CandidateOut]], path: str) -> Iterator[CandidateOut]:
        parameters: dict[str, str | int] = {"limit": 200}
        while True:
            answer = self._send("GET", path, params=parameters)
            found = page.model_validate_json(answer.content)
            yield from found.data
            if not found.has_more or found.next is None:
                return
            parameters["after"] = found.next

    def _send(self, method: str, path: str, **request: Any) -> httpx2.Response:
        try:
            answer = self._http.request(method, path, **request)
        except httpx2.TransportError as error:
            raise _unreachable(self._http.base_url, error) from error
        if answer.is_error:
            raise _refusal(answer)
        return answer


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unreachable(url: httpx2.URL, error: httpx2.TransportError) -> UnreachableError:
    return UnreachableError(f"no answer from {url}: {error or type(error).__name__}")


def _refusal(answer: httpx2.Response) -> RefusedError:
    try:
        problem = answer.json()
        if not isinstance(problem, dict):
            raise ValueError("no object")
    except ValueError:
        problem = {
            "title": "An answer that is not this service's",
            "detail": f"{answer.status_code} from {answer.url}: is it the right address?",
        }
    return RefusedError(answer.status_code, problem)
