"""Jobs in lines that a person reads."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from search.wording import WORDS, Words
from service.schemas import JobOut


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A line for each row, its columns as wide as their widest entry."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def job_table(jobs: Iterable[JobOut]) -> Iterator[str]:
    """A line for each job under a heading."""
    rows = [("job", "state", "verdict", "speedup", "strategy", "name", "created")]
    for job in jobs:
        state = f"{job.state} ({job.phase})" if job.state == "running" else str(job.state)
        rows.append(
            (
                job.id,
                state,
                job.verdict or "-",
                f"{job.best['speedup']:.2f}x" if job.best else "-",
                job.request["search"]["strategy"],
                job.name or "-",
                f"{job.created_at:%Y-%m-%d %H:%M}",
            )
        )
    return aligned(rows)


def job_lines(job: JobOut) -> Iterator[str]:
    """Where a job stands and what it found."""
    yield f"job         {job.id}"
    yield f"state       {job.state}{': ' + job.verdict if job.verdict else ''}"
    if job.phase and not job.state.is_terminal:
        yield f"phase       {job.phase}"
    if job.reason:
        yield f"reason      {job.reason['code']}: {job.reason['detail']}"
    if job.best:
        yield from _best_lines(job.best, job.request, job.baseline)


def best_words(job: JobOut) -> str:
    """The best so far, for a progress bar."""
    words = _words(job.request)
    if not job.best:
        return f"nothing {words.cheaper} yet"
    loss, cost = job.best["loss"], job.best["cost"]
    return (
        f"best {cost:.0%} of the {words.noun}, {job.best['speedup']:.2f}x, "
        f"loss {loss['value']:.2f}, at most {loss['upper']:.2f}"
    )


def _best_lines(
    best: Mapping[str, Any], request: Mapping[str, Any], baseline: Mapping[str, Any] | None
) -> Iterator[str]:
    loss, confidence = best["loss"], request["budget"]["confidence"]
    bound = f", at most {loss['upper']:.2f} with {confidence:.0%} confidence" if confidence else ""
    objective = request["objective"]
    yield (
        f"speedup     {best['speedup']:.2f}x ({best['speedup_low']:.2f} to "
        f"{best['speedup_high']:.2f}): {best['latency_ms']['p50_ms']:.3f} ms instead of "
        f"{best['dense_latency_ms']['p50_ms']:.3f} ms at batch {objective['batch']}"
    )
    yield (
        f"loss        {loss['value']:.2f} {loss['unit']} of {loss['metric']}{bound}; "
        f"{loss['allowed']:.2f} allowed; {loss['samples']} samples"
    )
    yield f"minimised   {_words(request).noun}: {best['cost']:.0%} of the dense network's"
    yield f"parameters  {_share(best, baseline, 'parameters')}"
    yield f"macs        {_share(best, baseline, 'macs')}"


def _words(request: Mapping[str, Any]) -> Words:
    return WORDS[request["objective"]["minimise"]]


def _share(best: Mapping[str, Any], baseline: Mapping[str, Any] | None, count: str) -> str:
    if not baseline:
        return f"{best[count]:,}"
    return f"{best[count]:,} of {baseline[count]:,} ({best[count] / baseline[count]:.0%})"
