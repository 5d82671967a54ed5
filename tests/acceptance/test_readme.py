"""The README's commands, settings and example, as a newcomer would use them."""

import re
import shutil
import socket
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from httpx2 import HTTPError, get

from compress.catalog import DEFAULT_METHODS
from compress.program.read import read_program
from service.settings import Settings
from tests.acceptance.processes import ROOT, environment, running, until

README = (ROOT / "README.md").read_text()
SHELL = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def checkout(folder):
    """A folder in which the README's relative paths lead to the checkout's files."""
    (folder / ".venv").symlink_to(Path(sys.prefix))
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def answers(url):
    try:
        return get(f"{url}/healthz").is_success
    except HTTPError:
        return False


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_commands_work_as_they_stand(tmp_path):
    start, compress, curl = SHELL[:3]
    folder, port = checkout(tmp_path), free_port()
    url = f"http://127.0.0.1:{port}"
    env = environment(port=port, url=url)
    serve = start.splitlines()[-1]
    assert serve == ".venv/bin/ranksearch serve"
    with running(serve.split(), env, cwd=folder) as server:
        until(lambda: answers(url))
        for block in (compress, curl):
            ended = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block],
                cwd=folder,
                env=env,
                capture_output=True,
                text=True,
                check=False,
            )
            assert ended.returncode == 0, ended.stdout + ended.stderr
        assert '"state":"cancel' in ended.stdout  # cancelled, or about to be
        server.terminate()
        server.communicate(timeout=30)
    assert server.returncode == 0
    assert (folder / "result" / "model.safetensors").exists()


def test_the_ten_lines_of_python_are_a_program():
    _, program = PYTHON
    imports = [line for line in program.splitlines() if line.startswith("from ")]
    ours = [line for line in imports if not line.startswith("from mynetwork ")]
    script = "\n".join([*ours, f"compile({program!r}, 'README.md', 'exec')"])
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_the_three_lines_of_export_write_a_program(tmp_path, monkeypatch):
    export, _ = PYTHON
    monkeypatch.chdir(tmp_path)
    model, x = torch.nn.Linear(4, 2), torch.randn(2, 4)
    exec(export, {"torch": torch, "model": model, "x": x})
    assert torch.equal(read_program("mine.pt2")(x), model(x))


@pytest.mark.parametrize("field", fields(Settings), ids=lambda field: field.name)
def test_every_setting_stands_in_the_table_with_its_default(field):
    row = re.search(rf"\| `RANKSEARCH_{field.name.upper()}` \| (.*?) \|", README)
    assert row is not None
    if field.default != "":
        default = str(field.default).lower() if field.type is bool else str(field.default)
        assert row[1] == f"`{default}`"


def test_the_readme_says_how_many_methods_a_job_tries():
    assert len(DEFAULT_METHODS) == 5
    assert "A job tries the first five" in README
