"""A job followed to its end, its progress on stderr."""

from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from service.client import Client
from service.commands.text import best_words
from service.schemas import JobOut


def watch(client: Client, job_id: str) -> JobOut:
    """The job as it ended: a live bar on a terminal, else a line for each new phase or best."""
    console = Console(stderr=True)
    states = client.follow(job_id)
    return _bar(states, console) if console.is_terminal else _lines(states, console)


def _bar(states: Iterator[JobOut], console: Console) -> JobOut:
    columns = (
        TextColumn("{task.description:10}"),
        BarColumn(30),
        TaskProgressColumn(),
        TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("queued", total=1.0, words="")
        for job in states:
            progress.update(
                task,
                description=_phase(job),
                completed=job.progress.get("fraction", 0.0),
                words=_words(job),
            )
    return job


def _lines(states: Iterator[JobOut], console: Console) -> JobOut:
    said = ""
    for job in states:
        line = f"{_phase(job)}: {best_words(job)}" if job.best else _phase(job)
        if line != said:
            console.print(line, soft_wrap=True, highlight=False, markup=False)
            said = line
    return job


def _phase(job: JobOut) -> str:
    return job.phase or "" if job.state == "running" else job.state.value


def _words(job: JobOut) -> str:
    done, most = (job.progress.get(f"evaluations_{part}") for part in ("done", "max"))
    if not done:
        return str(job.progress.get("message", ""))
    return f"{done}/{most} evaluations · {best_words(job)}"
