"""Uploads on their way are counted from the first byte, and given back when they end, however they end."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest

from fixtures import make
from imgsvc.http.wire import drain
from imgsvc.http.wire.body_rate import MinimumBodyRate, SlowClient
from imgsvc.settings.fields import MEGABYTE
from tests.conftest import Service, Starter
from tests.support.speed import within

PHOTO = make.jpeg()
UPLOAD = "/api/v1/images/upload?bucket=b"


class Held:
    """Uploads whose bodies begin and then wait, until `end` lets them."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.begun = 0
        self.answers: list[int] = []
        self._end = anyio.Event()
        self._changed = anyio.Event()

    async def _body(self, rest: bytes) -> AsyncIterator[bytes]:
        yield PHOTO[:200]
        self.begun += 1
        self._changed.set()
        await self._end.wait()
        yield rest

    async def send(self, headers: dict[str, str], rest: bytes = PHOTO[200:]) -> None:
        kind = {"Content-Type": "image/jpeg"}
        answer = await self.service.http.post(UPLOAD, content=self._body(rest), headers=headers | kind)
        self.answers.append(answer.status_code)

    async def are(self, count: int) -> None:
        with within(10):
            while self.begun < count:
                self._changed = anyio.Event()
                await self._changed.wait()

    def end(self) -> None:
        self._end.set()


async def tried(s: Service, user: str = "alice", **headers: str) -> httpx.Response:
    return await s.http.post(UPLOAD, content=PHOTO, headers=s.bearer(user) | {"Content-Type": "image/jpeg"} | headers)


async def test_open_uploads_of_one_user(start: Starter) -> None:
    async with start(uploads={"max_open_per_user": 3}) as s, anyio.create_task_group() as group:
        held = Held(s)
        for _ in range(3):
            group.start_soon(held.send, s.bearer("alice"))
        await held.are(3)
        refused = await tried(s)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_open_uploads")
        assert (refused.json()["limit"], refused.json()["measured"]) == (3, 3)
        assert int(refused.headers["Retry-After"]) > 0
        assert (await tried(s, "bob")).status_code == 202
        held.end()
        with within(10):
            while len(held.answers) < 3:
                await anyio.sleep(0.01)
        assert held.answers == [202] * 3
        assert (await tried(s)).status_code == 202


async def test_open_uploads_of_all(start: Starter) -> None:
    async with start(uploads={"max_open": 2}) as s, anyio.create_task_group() as group:
        known = {"Idempotency-Key": str(uuid.uuid4())}
        assert (await tried(s, **known)).status_code == 202
        held = Held(s)
        for user in ("alice", "bob"):
            group.start_soon(held.send, s.bearer(user))
        await held.are(2)
        refused = await tried(s, "carol")
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert (refused.json()["limit"], refused.json()["measured"]) == (2, 2)
        assert refused.headers["Retry-After"]
        again = await tried(s, **known)
        assert (again.status_code, again.headers["Idempotency-Replayed"]) == (202, "true")
        held.end()


@pytest.mark.parametrize("rest", [PHOTO[200:], b"no picture"])
async def test_place_of_the_rate_limit_is_held_from_the_first_byte(start: Starter, rest: bytes) -> None:
    async with start(rate_limit={"max_uploads": 2}) as s, anyio.create_task_group() as group:
        held = Held(s)
        for _ in range(2):
            group.start_soon(held.send, s.bearer("alice"), rest)
        await held.are(2)
        refused = await tried(s)
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert refused.headers["X-RateLimit-Remaining"] == "0"
        held.end()
        with within(10):
            while len(held.answers) < 2:
                await anyio.sleep(0.01)
        kept = rest == PHOTO[200:]
        assert (await tried(s)).status_code == (429 if kept else 202)


@pytest.mark.parametrize("chunked", [True, False])
async def test_announced_bytes_count_against_the_reserve(
    start: Starter, chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "DRAIN_SECONDS", 0.1)  # the refused body never ends
    async with start(storage={"reserve_mb": 1}, uploads={"max_size_mb": 10}) as s, anyio.create_task_group() as group:
        length = {} if chunked else {"Content-Length": str(10 * MEGABYTE)}
        held = Held(s)
        for _ in range(2):
            group.start_soon(held.send, s.bearer("alice") | length)
        await held.are(2)
        s.state.telemetry.disk.free_bytes = 25 * MEGABYTE
        refused = await s.http.post(
            UPLOAD, content=held._body(b""), headers=s.bearer("bob") | {"Content-Type": "image/jpeg"} | length
        )
        assert (refused.status_code, refused.json()["code"]) == (507, "storage_full")
        assert refused.json()["limit_bytes"] == MEGABYTE
        assert (await tried(s, "bob")).status_code == 202  # a small one fits
        held.end()
        group.cancel_scope.cancel()
    assert s.app.state.service.intake._open.announced_bytes == 0


async def test_rate_holds_after_a_fast_start() -> None:
    pace, came = MinimumBodyRate(0.2, 1024), iter([bytes(10 * MEGABYTE)] + [b"x"] * 100)

    async def receive() -> dict[str, Any]:
        await anyio.sleep(0.05)
        return {"type": "http.request", "body": next(came), "more_body": True}

    async def whole() -> None:
        with within(3), pace.watching():
            while True:
                await pace.next(receive)

    with pytest.raises(SlowClient, match="slower than 1024 bytes per second"):
        await whole()
