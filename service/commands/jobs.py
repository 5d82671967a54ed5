"""`ranksearch jobs`: list, show, watch, cancel."""

from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from service.client import Client
from service.commands.connection import Json, Token, Url, connect
from service.commands.exits import Exit, of_job
from service.commands.text import job_lines, job_table
from service.commands.watching import watch as watch_job
from service.schemas import JobOut
from service.store.tables import JobState

ARCHIVE: Final = "application/zip"  # the files below are in it as well

app = typer.Typer(help="Look after jobs.", no_args_is_help=True, rich_markup_mode=None)
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Its id.")]


@app.command("list")
def list_jobs(
    state: Annotated[JobState | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(help="How many, the newest first.", min=1, max=200)] = 20,
    as_json: Json = False,
    url: Url = "",
    token: Token = "",
) -> None:
    """List jobs, newest first."""
    with connect(url, token) as client:
        page = client.jobs(limit=limit, state=state)
    typer.echo(page.model_dump_json() if as_json else "\n".join(job_table(page.data)))


@app.command()
def show(job_id: JobId, as_json: Json = False, url: Url = "", token: Token = "") -> None:
    """Say where a job stands and what it has found."""
    with connect(url, token) as client:
        _print(client.job(job_id), as_json=as_json)


@app.command()
def watch(
    job_id: JobId,
    out: Annotated[Path | None, typer.Option(help="Download the result into this folder.")] = None,
    as_json: Json = False,
    url: Url = "",
    token: Token = "",
) -> None:
    """Follow a job to its end; the exit code is its verdict."""
    with connect(url, token) as client:
        finish(client, job_id, out, as_json=as_json)


@app.command()
def cancel(job_id: JobId, as_json: Json = False, url: Url = "", token: Token = "") -> None:
    """End a job; the best so far is kept."""
    with connect(url, token) as client:
        _print(client.cancel(job_id), as_json=as_json)


def finish(client: Client, job_id: str, out: Path | None, *, as_json: bool) -> NoReturn:
    """Follow a job, download what it made into `out` and end the command with its verdict."""
    try:
        job = watch_job(client, job_id)
    except KeyboardInterrupt:
        folder = f" --out {out}" if out else ""
        typer.echo(
            f"\n{job_id} goes on. Follow it again: ranksearch jobs watch {job_id}{folder}\n"
            f"or end it: ranksearch jobs cancel {job_id}",
            err=True,
        )
        raise typer.Exit(Exit.DETACHED) from None
    files = [] if out is None else [a for a in client.artifacts(job_id) if a.media_type != ARCHIVE]
    for artifact in files:
        client.download(artifact, out or Path())
    _print(job, as_json=as_json)
    if files and not as_json:
        typer.echo(f"result      {out}: {', '.join(file.name for file in files)}")
    raise typer.Exit(of_job(job))


def _print(job: JobOut, *, as_json: bool) -> None:
    typer.echo(job.model_dump_json() if as_json else "\n".join(job_lines(job)))
