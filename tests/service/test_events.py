"""What happens to a job, by pages and as it happens."""

import itertools
import json
import threading

import anyio
import pytest

from service.routes import events as route
from service.store import jobs, lease, progress
from service.store.tables import JobState
from tests.service.conftest import claim, record

STREAM = {"Accept": "text/event-stream"}


def url(job_id):
    return f"/v1/jobs/{job_id}/events"


def parse(text):
    """The events of a stream as (id, type, data), by the rules of the HTML standard."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[0] != ":")
        if "data" in fields:
            found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


def work(sessions, held):
    """The life of a job, from its first phase to its end."""
    for step in (
        lambda session: progress.phase(session, held, "searching"),
        lambda session: progress.progress(session, held, {"fraction": 0.5}),
        lambda session: progress.best(session, held, {"speedup": 2.0}),
    ):
        with sessions.begin() as session:
            step(session)
    record(sessions, held, "a")
    with sessions.begin() as session:
        lease.finish(session, held, JobState.SUCCEEDED, verdict="budget_met")


TYPES = ["state", "state", "phase", "phase", "progress", "best", "candidate", "state", "done"]


@pytest.fixture
def finished(client, job_id):
    work(client.app.state.sessions, claim(client.app.state.sessions))
    return job_id


def test_events_are_paged_oldest_first(client, finished):
    whole = client.get(url(finished)).json()
    assert [event["type"] for event in whole["data"]] == TYPES
    assert whole["has_more"] is False
    first = client.get(url(finished), params={"limit": 4}).json()
    rest = client.get(url(finished), params={"after": first["next"]}).json()
    assert first["has_more"] is True
    assert first["data"] + rest["data"] == whole["data"]
    assert whole["data"][2]["payload"] == {"phase": "loading"}
    assert {event["job_id"] for event in whole["data"]} == {finished}


def test_a_stream_tells_the_same_events_and_ends(client, finished):
    answer = client.get(url(finished), headers=STREAM)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Accel-Buffering"] == "no"
    assert answer.text.startswith("retry: 3000\n\n")
    pages = client.get(url(finished)).json()["data"]
    assert parse(answer.text) == [(e["sequence"], e["type"], e) for e in pages]


def test_a_reader_who_comes_back_misses_nothing_and_hears_nothing_twice(client, finished):
    whole = parse(client.get(url(finished), headers=STREAM).text)
    for number, (last, *_) in enumerate(whole[:-1], start=1):
        rest = client.get(url(finished), headers=STREAM | {"Last-Event-ID": str(last)})
        assert parse(rest.text) == whole[number:]
        asked = client.get(url(finished), headers=STREAM, params={"after": last})
        assert parse(asked.text) == whole[number:]


def test_a_reader_who_has_heard_the_end_is_told_to_stay_away(client, finished):
    last = parse(client.get(url(finished), headers=STREAM).text)[-1][0]
    answer = client.get(url(finished), headers=STREAM | {"Last-Event-ID": str(last)})
    assert (answer.status_code, answer.content) == (204, b"")


def test_the_place_of_a_browser_goes_before_that_of_its_address(client, finished):
    whole = parse(client.get(url(finished), headers=STREAM).text)
    answer = client.get(
        url(finished), headers=STREAM | {"Last-Event-ID": str(whole[4][0])}, params={"after": 0}
    )
    assert parse(answer.text) == whole[5:]


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "²", "9" * 40, ""])
def test_a_place_that_is_none_is_refused(client, job_id, value):
    answer = client.get(url(job_id), headers=STREAM | {"Last-Event-ID": value.encode()})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-cursor")


@pytest.mark.parametrize("query", [{"after": "x"}, {"after": -1}, {"after": 2**63}, {"limit": 0}])
def test_a_page_that_is_none_is_refused(client, job_id, query):
    assert client.get(url(job_id), params=query).json()["code"] == "invalid-request"


def test_events_are_told_while_they_happen(client, job_id):
    sessions = client.app.state.sessions
    with client.stream("GET", url(job_id), headers=STREAM) as answer:
        blocks = (line for line in answer.iter_lines() if line.startswith("event: "))
        assert next(blocks) == "event: state"  # and nothing else has happened yet
        held = claim(sessions)
        assert [next(blocks), next(blocks)] == ["event: state", "event: phase"]
        worker = threading.Thread(target=work, args=(sessions, held))
        worker.start()
        rest = list(blocks)
        worker.join()
    assert rest == [f"event: {name}" for name in TYPES[3:]]


def follow(client, job_id, steps, **options):
    """Run `steps(stream)` on the stream of a job."""
    settings = {"after": 0, "poll_seconds": 0.001} | options

    async def main():
        stream = route.follow(client.app.state.sessions, job_id, **settings)
        with anyio.fail_after(60):
            await steps(stream)
        await stream.aclose()

    anyio.run(main)


def test_a_silent_job_beats(client, job_id, monkeypatch):
    monkeypatch.setattr(route, "HEARTBEAT_SECONDS", 0.002)

    async def steps(stream):
        assert (await anext(stream)).startswith("retry: ")
        assert "event: state" in await anext(stream)
        assert [await anext(stream) for _ in range(3)] == [": heartbeat\n\n"] * 3
        with client.app.state.sessions.begin() as session:
            jobs.cancel(session, job_id)
        said = [block async for block in stream if block != ": heartbeat\n\n"]
        assert ["event: state" in said[0], "event: done" in said[1]] == [True, True]
        assert len(said) == 2

    follow(client, job_id, steps)


def test_more_events_than_one_look_are_all_told(client, finished, monkeypatch):
    whole = parse(client.get(url(finished), headers=STREAM).text)
    for batch in (1, 2, 3, len(whole)):
        monkeypatch.setattr(route, "BATCH", batch)
        assert parse(client.get(url(finished), headers=STREAM).text) == whole


def test_the_stream_of_a_job_that_is_deleted_ends(client, job_id):
    async def steps(stream):
        await anext(stream)
        await anext(stream)
        with client.app.state.sessions.begin() as session:
            jobs.cancel(session, job_id)
            jobs.delete(session, job_id)
        assert [block async for block in stream] == []

    follow(client, job_id, steps)


def test_readers_who_wait_hold_no_thread(client, job_id):
    async def steps(_):
        threads, heard = anyio.to_thread.current_default_thread_limiter(), []

        async def read():
            stream = route.follow(client.app.state.sessions, job_id, 0, poll_seconds=600)
            async for block in stream:
                heard.append(block)

        async with anyio.create_task_group() as readers:
            for _ in range(100):
                readers.start_soon(read)
            while len(heard) < 200 or threads.borrowed_tokens:
                await anyio.sleep(0.01)
            assert threads.total_tokens < 100  # else it would prove nothing
            readers.cancel_scope.cancel()

    follow(client, job_id, steps)


def test_both_forms_agree_on_any_cut(client, finished):
    whole = client.get(url(finished)).json()["data"]
    for start, limit in itertools.product((0, 3), (1, 5)):
        after = whole[start]["sequence"]
        cut = client.get(url(finished), params={"after": after, "limit": limit}).json()
        assert cut["data"] == whole[start + 1 : start + 1 + limit]
