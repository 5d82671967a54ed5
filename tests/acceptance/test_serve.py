"""`ranksearch serve` as a process: what it prints, what it starts, how it ends."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from search.config import Budget
from service.client import Client
from service.schemas import JobOrder
from tests.acceptance.processes import (
    RANKSEARCH,
    ROOT,
    descendants,
    environment,
    running,
    until,
)
from tests.workers.jobs import is_alive

WEIGHTS = ROOT / "examples" / "digits" / "model.safetensors"
SERVE = [RANKSEARCH, "serve", "--port", "0"]


def status(url: str, token: str = "") -> int:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def worker_of(served: subprocess.Popen[str]) -> int:
    """The supervisor, once it is ready for jobs."""
    until(lambda: "worker ready" in served.stderr.readline())
    return until(lambda: descendants(served.pid))[0]


def test_it_prints_where_it_is_and_a_token_that_it_keeps(tmp_path):
    command = [*SERVE, "--no-worker", "--data-dir", str(tmp_path / "new" / "data")]
    with running(command, environment()) as served:
        url = re.fullmatch(r"ranksearch at (http://127\.0\.0\.1:\d+)\n", served.stdout.readline())[
            1
        ]
        token = re.fullmatch(r"token (\S{32,})\n", served.stdout.readline())[1]
        assert status(f"{url}/healthz") == 200
        assert status(f"{url}/v1/jobs", token) == 200
        assert status(f"{url}/v1/jobs") == 401
        assert not descendants(served.pid)
    kept = tmp_path / "new" / "data" / "token"
    assert kept.read_text() == f"{token}\n"
    assert kept.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_it_takes_its_worker_along(tmp_path, number):
    with running(SERVE, environment(data_dir=tmp_path)) as served:
        worker = worker_of(served)
        served.send_signal(number)
        assert served.wait(20) == 0
        assert not is_alive(worker)
        assert "Traceback" not in served.stderr.read()


def test_an_open_event_stream_does_not_keep_it(tmp_path):
    env = environment(data_dir=tmp_path, token="known")
    with running([*SERVE, "--no-worker", "--json"], env) as served:
        url = json.loads(served.stdout.readline())["url"]
        with Client(url, "known") as client:
            model = client.upload_model(WEIGHTS, architecture="digits_cnn")
            dataset = client.builtin_dataset("digits")
            budget = Budget(max_loss=1, unit="points")
            job = client.submit(JobOrder(model=model.id, dataset=dataset.id, budget=budget))
        headers = {"Authorization": "Bearer known", "Accept": "text/event-stream"}
        stream = urllib.request.Request(url + job.links["events"], headers=headers)
        with urllib.request.urlopen(stream) as events:
            assert events.readline()
            served.send_signal(signal.SIGTERM)
            assert served.wait(20) == 0


def test_a_worker_that_is_killed_is_started_again(tmp_path):
    with running(SERVE, environment(data_dir=tmp_path)) as served:
        first = worker_of(served)
        os.kill(first, signal.SIGKILL)
        until(lambda: "the worker ended with exit code -9" in served.stderr.readline())
        second = worker_of(served)
        assert second != first
        assert is_alive(second)


def test_killed_at_once_it_takes_its_worker_along(tmp_path):
    with running(SERVE, environment(data_dir=tmp_path)) as served:
        worker = worker_of(served)
        served.kill()
        until(lambda: not is_alive(worker))


def test_a_port_that_is_taken_is_told_in_a_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [RANKSEARCH, "serve", "--port", str(port), "--data-dir", str(tmp_path)]
        ended = subprocess.run(
            command, env=environment(), check=False, capture_output=True, text=True
        )
    assert ended.returncode == 1
    assert f"cannot listen at 127.0.0.1:{port}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_database_that_cannot_be_used_is_told_in_a_sentence(tmp_path):
    away = "postgresql+psycopg://nobody@127.0.0.1:9/none"
    env = environment(data_dir=tmp_path, database_url=away)
    ended = subprocess.run(SERVE, env=env, check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "the database cannot be used" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_worker_is_the_supervisor_itself(tmp_path, migrated_sqlite):
    shutil.copyfile(migrated_sqlite, tmp_path / "ranksearch.db")
    with running([RANKSEARCH, "worker"], environment(data_dir=tmp_path)) as worker:
        ready = until(lambda: json.loads(worker.stderr.readline()))
        assert ready["event"] == "worker ready"
        assert ready["owner"].endswith(f":{worker.pid}")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0


def test_the_command_line_loads_neither_torch_nor_workers():
    program = "import sys, service.cli, service.serving; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert "service.serving" in loaded
    assert not {"torch", "workers", "deap"} & {name.partition(".")[0] for name in loaded}
