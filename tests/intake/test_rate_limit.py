"""The quota on the wire: exact under concurrency, correct in the headers, used only by accepted uploads."""

import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import httpx
import pytest

from fixtures import make
from imgsvc.http.wire.drain import DRAIN_BYTES, QUEUED
from tests.conftest import Service, Starter
from tests.support.speed import within

TINY = make.tiny()
UPLOAD = "/api/v1/images/upload"
RAW = {"Content-Type": "image/jpeg"}


def sql(s: Service, statement: str, *values: Any) -> list[Any]:
    with closing(sqlite3.connect(s.settings.database.path)) as db, db:
        return db.execute(statement, values).fetchall()


def rows(s: Service) -> int:
    return int(sql(s, "SELECT count(*) FROM processing_jobs")[0][0])


def remaining(response: httpx.Response) -> int:
    assert response.status_code == 202, response.text
    return int(response.headers["X-RateLimit-Remaining"])


def reset(response: httpx.Response) -> datetime:
    moment = datetime.fromisoformat(response.headers["X-RateLimit-Reset"])
    assert moment.utcoffset() == timedelta(0)
    return moment


def left(response: httpx.Response) -> float:
    return (reset(response) - datetime.now(UTC)).total_seconds()


@pytest.mark.parametrize(("minutes", "per"), [(60, "hour"), (5, "5 minutes"), (0.5, "0.5 minutes")])
async def test_headers_and_words(start: Starter, minutes: float, per: str) -> None:
    async with start(rate_limit={"max_uploads": 2, "window_minutes": minutes}) as s:
        s.state.jobs.queue.hold()
        before = datetime.now(UTC)
        first, second, third = [await s.upload(TINY) for _ in range(3)]
        after = datetime.now(UTC)
        assert [remaining(first), remaining(second)] == [1, 0]
        assert third.status_code == 429
        assert third.headers["X-RateLimit-Remaining"] == "0"
        assert {answer.headers["X-RateLimit-Limit"] for answer in (first, second, third)} == {"2"}
        ends = {reset(answer) for answer in (first, second, third)}
        assert len(ends) == 1
        (began,) = sql(s, "SELECT window_start FROM upload_rate_limits")[0]
        end = datetime.fromisoformat(began) + timedelta(minutes=minutes)
        assert ends == {end}
        assert before <= datetime.fromisoformat(began) <= after
        assert left(third) <= int(third.headers["Retry-After"]) <= left(third) + 5
        assert third.headers["Content-Type"] == "application/problem+json"
        body = third.json()
        assert body["code"] == "rate_limited"
        assert body["error"] == body["detail"] == f"Rate limit exceeded. Maximum 2 uploads per {per}."
        assert (body["limit"], body["used"]) == (2, 2)
        assert "Retry-After" not in first.headers


async def test_rejected_uploads_cost_nothing(start: Starter) -> None:
    async with start(rate_limit={"max_uploads": 1}, uploads={"max_size_mb": 0.1}) as s:
        s.state.jobs.queue.hold()
        fields = {"bucket": "photos"}
        refusals = [
            (415, await s.upload(b"only words " * 60)),
            (415, await s.upload(b"")),
            (422, await s.upload(TINY, bucket="../x")),
            (422, await s.upload(TINY, metadata="[]")),
            (422, await s.upload(TINY[:300])),
            (413, await s.upload(TINY + bytes(150_000))),
            (413, await s.upload(TINY + bytes(2_000_000))),
            (401, await s.http.post(UPLOAD, data=fields, files={"file": TINY})),
        ]
        for status, answer in refusals:
            assert answer.status_code == status, answer.text
        assert sql(s, "SELECT * FROM upload_rate_limits") == []
        assert (rows(s), s.staged()) == (0, [])
        assert remaining(await s.upload(TINY)) == 0
        assert (await s.upload(TINY)).status_code == 429
        assert (rows(s), len(s.staged())) == (1, 1)


async def test_120_at_once_at_a_limit_of_50(start: Starter) -> None:
    async with start(rate_limit={"max_uploads": 50}, uploads={"max_open_per_user": 1000}) as s:
        s.state.jobs.queue.hold()
        answers: list[httpx.Response] = []

        async def one() -> None:
            answers.append(await s.upload(TINY))

        async with anyio.create_task_group() as group:
            for _ in range(120):
                group.start_soon(one)
        assert Counter(answer.status_code for answer in answers) == {202: 50, 429: 70}
        assert sorted(remaining(answer) for answer in answers if answer.status_code == 202) == list(range(50))
        refused = {answer.json()["error"] for answer in answers if answer.status_code == 429}
        assert refused == {"Rate limit exceeded. Maximum 50 uploads per hour."}
        assert (rows(s), len(s.staged())) == (50, 50)
        assert sql(s, "SELECT upload_count FROM upload_rate_limits") == [(50,)]
        events = sql(s, "SELECT job_id FROM image_upload_events WHERE event_type = 'rate_limited'")
        assert events == [(None,)]


async def test_users_are_separate(start: Starter) -> None:
    async def upload(s: Service, user: str, **more: str) -> httpx.Response:
        headers = {**RAW, **s.bearer(user, **more)}
        return await s.http.post(UPLOAD, params={"bucket": "b"}, content=TINY, headers=headers)

    people = [("alice", "x"), ("bob", "x"), ("alice", "y"), ("c", "a:b"), ("b:c", "a"), ("ALICE", "x")]
    async with start(rate_limit={"max_uploads": 1}) as s:
        s.state.jobs.queue.hold()
        for user, org in people:
            assert remaining(await upload(s, user, org_id=org)) == 0
        for user, org in people:
            assert (await upload(s, user, org_id=org)).status_code == 429
            assert (await upload(s, user, org_id=org)).status_code == 429
        query = "SELECT metadata ->> 'user_id', metadata ->> 'org_id' FROM image_upload_events WHERE event_type = ?"
        noted = sql(s, query, "rate_limited")
        assert noted == people
        assert rows(s) == len(people)


@pytest.mark.parametrize(("minutes", "status"), [(-59, 429), (-61, 202), (30, 202), (1e6, 202)])
async def test_window_that_began_another_time(start: Starter, minutes: float, status: int) -> None:
    """A past window, or one in the future after the clock was set back, starts over. A restart changes nothing."""
    async with start(rate_limit={"max_uploads": 1}) as s:
        s.state.jobs.queue.hold()
        assert remaining(await s.upload(TINY)) == 0
    began = (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat(timespec="microseconds")
    await s.sql("UPDATE upload_rate_limits SET window_start = ?", began)
    async with start(rate_limit={"max_uploads": 1}) as s:
        s.state.jobs.queue.hold()
        answer = await s.upload(TINY)
        assert answer.status_code == status
        expected = (60 + minutes if status == 429 else 60) * 60
        assert expected - 10 <= left(answer) <= expected
        assert (await s.upload(TINY)).status_code == 429


async def test_limit_survives_a_restart(start: Starter) -> None:
    async with start(rate_limit={"max_uploads": 2}) as s:
        s.state.jobs.queue.hold()
        first = await s.upload(TINY)
    async with start(rate_limit={"max_uploads": 2}) as s:
        s.state.jobs.queue.hold()
        second = await s.upload(TINY)
        assert remaining(second) == 0
        assert reset(second) == reset(first)
        assert (await s.upload(TINY)).status_code == 429


async def test_refused_before_the_body_is_read(start: Starter) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 16
            yield TINY + bytes((1 << 16) - len(TINY))

    async with start(rate_limit={"max_uploads": 1}) as s:
        s.state.jobs.queue.hold()
        assert remaining(await s.upload(TINY)) == 0
        with within(5):
            answer = await s.http.post(
                UPLOAD, params={"bucket": "../x"}, content=endless(), headers={**RAW, **s.bearer()}
            )
        assert answer.status_code == 429
        assert answer.headers["Connection"] == "close"
        assert sent <= DRAIN_BYTES + ((QUEUED + 1) << 16)
        assert len(s.staged()) == 1
