"""Commands that work on this machine without the service, in a process that may import torch."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from service.commands.connection import Json
from service.commands.exits import Exit


def worker() -> None:
    """Run one worker alone."""
    os.execv(sys.executable, [sys.executable, "-m", "workers"])


def inspect(
    model: Annotated[
        str, typer.Argument(help="Architecture, or a program of torch.export, a .pt2 file.")
    ],
    weights: Annotated[
        Path | None, typer.Option(help="The file of its weights, checked too.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Name every layer: methods that apply, or why none."""
    given = [] if weights is None else ["--weights", str(weights)]
    run_module("search.inspection", model, *given, as_json=as_json)


def verify(
    result: Annotated[Path, typer.Argument(help="Folder or zip of a result.")],
    as_json: Json = False,
) -> None:
    """Check a result, and its speed on this machine."""
    run_module("search.verification", str(result), as_json=as_json)


def run_module(module: str, *arguments: str, as_json: bool) -> NoReturn:
    """Run a module of ours with torch; its output and exit code are the command's."""
    if find_spec("torch") is None:
        typer.echo("this command needs torch: pip install 'ranksearch[worker]'", err=True)
        raise typer.Exit(Exit.FAILED)
    command = [sys.executable, "-m", module, *arguments, *(["--json"] if as_json else [])]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    typer.echo(ended.stdout, nl=False)
    raise typer.Exit(ended.returncode)
