"""Idempotency-Key: one order, however often it is sent."""

import threading

import pytest
from sqlalchemy import func, select

from service.store.tables import IdempotencyRow, JobRow
from tests.service.conftest import add_dataset, add_model, claim, order_of


def count(client, table=JobRow):
    with client.app.state.sessions() as session:
        return session.scalar(select(func.count()).select_from(table))


def submit(client, order, key):
    return client.post("/v1/jobs", json=order, headers={"Idempotency-Key": key})


def test_the_answer_is_replayed_as_it_was(client, order):
    first = submit(client, order, "one")
    claim(client.app.state.sessions)  # the job goes on; the answer stays
    again = submit(client, order, "one")
    assert again.status_code == first.status_code == 202
    assert again.json() == first.json()
    for header in ("Location", "Retry-After", "ETag", "Content-Type"):
        assert again.headers[header] == first.headers[header]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["X-Request-Id"] != first.headers["X-Request-Id"]
    assert count(client) == 1


def test_another_body_under_the_same_key_is_refused(client, order):
    submit(client, order, "one")
    answer = submit(client, order | {"priority": 1}, "one")
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency-key-reused")
    assert count(client) == 1


def test_another_key_and_no_key_are_other_orders(client, order):
    submit(client, order, "one")
    submit(client, order, "two")
    client.post("/v1/jobs", json=order)
    client.post("/v1/jobs", json=order)
    assert count(client) == 4


def test_a_refused_order_does_not_use_up_its_key(client, order):
    assert submit(client, order | {"model": "mod_0"}, "one").status_code == 404
    assert count(client, IdempotencyRow) == 0
    assert submit(client, order, "one").status_code == 202


def test_a_name_that_is_taken_does_not_hide_the_first_answer(client, order):
    named = order | {"name": "mine"}
    first, again = submit(client, named, "one"), submit(client, named, "one")
    assert (again.status_code, again.json()) == (202, first.json())
    assert submit(client, named, "two").json()["code"] == "name-taken"


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 201, "\x7f", "ä".encode()])
def test_a_key_that_is_none_is_refused(client, order, key):
    answer = submit(client, order, key)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")
    assert answer.json()["errors"][0]["parameter"] == "Idempotency-Key"
    assert count(client) == 0


def test_many_at_once_make_one_job(client_on_both):
    client = client_on_both
    order = order_of(add_model(client), add_dataset(client))
    answers, begin = [], threading.Barrier(8)

    def send():
        begin.wait()
        answers.append(submit(client, order, "one"))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [202] * 8
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == 7
    assert count(client) == 1


def test_many_uploads_at_once_make_one_model(client_on_both):
    answers, begin = [], threading.Barrier(6)

    def send():
        begin.wait()
        answers.append(add_model(client_on_both))

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 6
    assert len(set(answers)) == 1
