"""Commands that work on this machine without the service, in a process that may import torch."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from service.commands.connection import Json


def worker() -> None:
    """Run a worker alone, on the database that the environment names."""
    os.execv(sys.executable, [sys.executable, "-m", "workers"])


def inspect(
    model: Annotated[str, typer.Argument(help="Architecture: of torchvision, or an example.")],
    weights: Annotated[Path | None, typer.Option(help="Its safetensors file, checked too.")] = None,
    as_json: Json = False,
) -> None:
    """Name every layer with the methods that apply, or the reason why none does."""
    given = [] if weights is None else ["--weights", str(weights)]
    _run("search.inspection", model, *given, as_json=as_json)


def verify(
    result: Annotated[Path, typer.Argument(help="Folder or zip of a result.")],
    as_json: Json = False,
) -> None:
    """Check a result: digests, reload, parity, and its speed on this machine."""
    _run("search.verification", str(result), as_json=as_json)


def _run(module: str, *arguments: str, as_json: bool) -> None:
    """Run a module of ours with torch; its output and exit code are the command's."""
    command = [sys.executable, "-m", module, *arguments, *(["--json"] if as_json else [])]
    raise typer.Exit(subprocess.run(command, check=False).returncode)
