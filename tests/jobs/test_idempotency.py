"""Idempotency-Key: one upload however often it is sent, across restarts, kills and crowds."""

import json
import signal
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from fixtures import make
from imgsvc.access.tokens import Tokens
from tests.conftest import Service, Starter
from tests.support.server_process import SECRET, InlineServer, ServerProcess
from tests.support.speed import within

TINY, OTHER = make.tiny(), make.jpeg(48, 64)
UPLOAD = "/api/v1/images/upload"
KEY = "one upload"
ONE = {"max_uploads": 1}


async def send(
    s: Service,
    data: bytes | AsyncIterator[bytes] = TINY,
    key: str = KEY,
    *,
    user: str = "alice",
    bucket: str = "photos",
    metadata: str = "{}",
    org: str = "x",
) -> httpx.Response:
    headers = {**s.bearer(user, org_id=org), "Content-Type": "image/jpeg", "Idempotency-Key": key}
    headers["X-Metadata"] = metadata
    return await s.http.post(UPLOAD, params={"bucket": bucket}, content=data, headers=headers)


def sql(s: Service, statement: str, *values: Any) -> list[Any]:
    with closing(sqlite3.connect(s.settings.database.path)) as db, db:
        return db.execute(statement, values).fetchall()


def rows(s: Service) -> int:
    return int(sql(s, "SELECT count(*) FROM processing_jobs")[0][0])


def new(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 202, answer.text
    assert "Idempotency-Replayed" not in answer.headers
    body: dict[str, str] = answer.json()
    return body


def replayed(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 202, answer.text
    assert answer.headers["Idempotency-Replayed"] == "true"
    body: dict[str, str] = answer.json()
    return body


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert "Idempotency-Replayed" not in answer.headers


async def test_same_again_gets_the_first_answer(start: Starter) -> None:
    async with start(rate_limit={"max_uploads": 2}) as s:
        s.state.jobs.queue.hold()
        first = await send(s, metadata='{"a": 1, "b": {"c": 2, "d": [1, 2]}}')
        again = await send(s, metadata=' {"b": {"d": [1, 2], "c": 2}, "a": 1}')
        assert replayed(again) == new(first)
        assert again.headers["Location"] == first.headers["Location"]
        for name in ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"):
            assert again.headers[name] == first.headers[name]
        assert (rows(s), s.staged()) == (1, [first.json()["job_id"]])
        assert sql(s, "SELECT upload_count FROM upload_rate_limits") == [(1,)]
        new(await send(s, key="two"))
        assert (await send(s, key="three")).status_code == 429
        assert replayed(await send(s, metadata='{"a": 1, "b": {"c": 2, "d": [1, 2]}}')) == first.json()
        refused(await send(s, OTHER), 422, "idempotency_conflict")
        assert rows(s) == len(s.staged()) == 2


async def test_multipart_and_raw_body_are_the_same_upload(start: Starter) -> None:
    async with start() as s:
        first = new(await send(s))
        headers = {**s.bearer("alice", org_id="x"), "Idempotency-Key": KEY}
        files = {"file": ("other-name.png", TINY)}
        answer = await s.http.post(UPLOAD, data={"bucket": "photos"}, files=files, headers=headers)
        assert replayed(answer) == first


async def test_something_else_under_the_same_key(start: Starter) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        first = new(await send(s, metadata='{"a": [1, 2]}'))
        others: list[dict[str, Any]] = [
            {"data": OTHER, "metadata": '{"a": [1, 2]}'},
            {"bucket": "photos2", "metadata": '{"a": [1, 2]}'},
            {"metadata": '{"a": [2, 1]}'},
            {"metadata": '{"a": [1, 2], "b": null}'},
            {},
        ]
        for other in others:
            refused(await send(s, **other), 422, "idempotency_conflict")
        assert (rows(s), s.staged()) == (1, [first["job_id"]])
        assert sql(s, "SELECT upload_count FROM upload_rate_limits") == [(1,)]
        assert replayed(await send(s, metadata='{"a": [1, 2]}')) == first


async def test_across_restarts_and_after_the_job(start: Starter) -> None:
    async with start(rate_limit=ONE) as s:
        answer = await send(s)
        first = new(answer)
        assert (await s.ended(answer))["status"] == "completed"
        assert replayed(await send(s)) == first
    async with start(rate_limit=ONE) as s:
        assert replayed(await send(s)) == first
        refused(await send(s, OTHER), 422, "idempotency_conflict")
        assert (rows(s), s.staged()) == (1, [])
        assert (await s.job(first["job_id"]))["status"] == "completed"


@pytest.mark.process
def test_after_a_kill(tmp_path: Path) -> None:
    headers = {"Content-Type": "image/jpeg", "Idempotency-Key": KEY}
    headers["Authorization"] = f"Bearer {Tokens(SECRET, 'HS256').issue('alice')}"

    def upload(server: ServerProcess) -> httpx.Response:
        return server.http.post(f"{server.url}{UPLOAD}?bucket=b", content=TINY, headers=headers)

    with InlineServer(tmp_path, RATE_LIMIT_MAX_UPLOADS="1") as server:
        first = new(upload(server))
        server.signal(signal.SIGKILL)
        server.ended()
        server.start()
        assert replayed(upload(server)) == first
        assert server.job_ended(first["job_id"])["status"] == "completed"
        assert replayed(upload(server)) == first
    with closing(sqlite3.connect(tmp_path / "data" / "imgsvc.db")) as db:
        assert db.execute("SELECT job_id FROM processing_jobs").fetchall() == [(first["job_id"],)]


async def slow(reached: anyio.Event, go: anyio.Event) -> AsyncIterator[bytes]:
    """A body that stops in its middle until it may go on."""
    yield TINY[:600]
    reached.set()
    await go.wait()
    yield TINY[600:]


async def test_while_the_first_is_still_being_received(start: Starter) -> None:
    reached, go = anyio.Event(), anyio.Event()
    answers: list[httpx.Response] = []

    async with start() as s, anyio.create_task_group() as group:

        async def first() -> None:
            answers.append(await send(s, slow(reached, go)))

        group.start_soon(first)
        await reached.wait()
        for data in (TINY, OTHER):
            answer = await send(s, data)
            refused(answer, 409, "idempotency_in_progress")
            assert int(answer.headers["Retry-After"]) >= 1
        new(await send(s, user="bob"))
        new(await send(s, key="another"))
        assert answers == []
        go.set()
        with within(10):
            while not answers:
                await anyio.sleep(0.01)
        assert replayed(await send(s)) == new(answers[0])


async def test_repeated_many_times_at_once(start: Starter) -> None:
    """The first was received: no repetition has to wait, however slowly another one sends."""
    reached, go = anyio.Event(), anyio.Event()
    answers: list[httpx.Response] = []

    async with start(rate_limit=ONE) as s:
        first = new(await send(s))
        async with anyio.create_task_group() as group:

            async def repeat() -> None:
                answers.append(await send(s, slow(reached, go)))

            group.start_soon(repeat)
            await reached.wait()
            assert replayed(await send(s)) == first
            refused(await send(s, OTHER), 422, "idempotency_conflict")
            go.set()
        assert replayed(answers[0]) == first
        assert rows(s) == 1


async def test_thirty_at_once_make_one_job(start: Starter) -> None:
    answers: list[httpx.Response] = []
    async with start(rate_limit=ONE) as s:
        s.state.jobs.queue.hold()

        async def one() -> None:
            answers.append(await send(s))

        async with anyio.create_task_group() as group:
            for _ in range(30):
                group.start_soon(one)
        accepted = [answer for answer in answers if answer.status_code == 202]
        assert Counter(answer.status_code for answer in answers).keys() <= {202, 409}
        assert len({answer.text for answer in accepted}) == 1
        assert sum("Idempotency-Replayed" not in answer.headers for answer in accepted) == 1
        for answer in answers:
            if answer.status_code == 409:
                refused(answer, 409, "idempotency_in_progress")
        assert (rows(s), len(s.staged())) == (1, 1)
        assert sql(s, "SELECT upload_count FROM upload_rate_limits") == [(1,)]


async def test_keys_belong_to_a_user_and_have_a_length(start: Starter) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        who = [(user, org) for user in ("alice", "bob") for org in ("x", "y")]
        firsts = [new(await send(s, user=user, org=org))["job_id"] for user, org in who]
        assert len(set(firsts)) == 4
        assert [replayed(await send(s, user=user, org=org))["job_id"] for user, org in who] == firsts
        longest = new(await send(s, key="k" * 255))
        assert replayed(await send(s, key="k" * 255)) == longest
        for key in ("k" * 256, ""):
            answer = await send(s, key=key)
            refused(answer, 422, "validation_error")
            assert [detail["loc"] for detail in answer.json()["details"]] == [["header", "idempotency-key"]]
        assert rows(s) == len(s.staged())


@pytest.mark.parametrize(("hours", "kept"), [(23.9, True), (24.1, False)])
async def test_kept_for_a_day(start: Starter, hours: float, kept: bool) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        first = new(await send(s))
    created = (datetime.now(UTC) - timedelta(hours=hours)).isoformat(timespec="microseconds")
    await s.sql("UPDATE processing_jobs SET created_at = ?", created)
    async with start() as s:
        s.state.jobs.queue.hold()
        if kept:
            assert replayed(await send(s)) == first
            return
        second = new(await send(s, OTHER))
        assert second["job_id"] != first["job_id"]
        assert replayed(await send(s, OTHER)) == second
        refused(await send(s), 422, "idempotency_conflict")
        assert (await s.job(first["job_id"]))["image_id"] == first["image_id"]


async def test_old_key_needs_quota_again(start: Starter) -> None:
    async with start(rate_limit=ONE) as s:
        s.state.jobs.queue.hold()
        new(await send(s))
        created = (datetime.now(UTC) - timedelta(hours=25)).isoformat(timespec="microseconds")
        await s.sql("UPDATE processing_jobs SET created_at = ?", created)
        assert (await send(s)).status_code == 429
        assert rows(s) == 1


async def test_failed_attempt_frees_the_key(start: Starter) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield TINY[:600]
        raise ConnectionResetError

    async with start(rate_limit=ONE) as s:
        s.state.jobs.queue.hold()
        assert (await send(s, b"only words " * 60)).status_code == 415
        assert (await send(s, bucket="../x")).status_code == 422
        assert (await send(s, TINY[:300])).status_code == 422
        answer = await send(s, metadata=json.dumps(["no object"]))
        refused(answer, 422, "validation_error")
        assert (await send(s, broken())).status_code == 500
        assert (rows(s), s.staged()) == (0, [])
        new(await send(s))


async def test_deleted_image_frees_the_key(start: Starter) -> None:
    async with start() as s:
        answer = await send(s)
        await s.ended(answer)
        first = new(answer)
        headers = s.bearer(org_id="x")
        assert (await s.http.delete(f"/api/v1/images/{first['image_id']}", headers=headers)).status_code == 200
        assert new(await send(s))["image_id"] != first["image_id"]


async def test_replay_is_given_while_the_disk_is_full(start: Starter) -> None:
    async with start() as s:
        key = {"Idempotency-Key": "k", "Content-Type": "image/jpeg"} | s.bearer()
        url, photo = "/api/v1/images/upload?bucket=b", make.jpeg(200, 150)
        first = await s.http.post(url, content=photo, headers=key)
        s.state.telemetry.disk.disk_full = True
        again = await s.http.post(url, content=photo, headers=key)
        assert (again.status_code, again.json()) == (202, first.json())
        assert again.headers["Idempotency-Replayed"] == "true"
