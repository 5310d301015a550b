"""The client against the real application, and its retries against a server that misbehaves on demand."""

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import httpx
import pytest

from fixtures import make
from imgsvc.client import (
    AsyncClient,
    Client,
    ConnectionFailed,
    ImgsvcError,
    JobFailed,
    Refused,
    Retries,
    StillProcessing,
    WebhookInvalid,
    verify_webhook,
)
from imgsvc.settings.webhooks import Webhook
from imgsvc.webhooks.message import headers_of
from tests.conftest import Service, Starter
from tests.support.receiver import NEXT_SECRET, SECRET

PHOTO = make.jpeg(64, 48)
ONCE = Retries(attempts=1)
QUICK = Retries(attempts=4, first_pause=0.001)


def client_of(s: Service, user: str = "alice", retries: Retries = ONCE) -> AsyncClient:
    token = s.bearer(user)["Authorization"].removeprefix("Bearer ")
    return AsyncClient("http://localhost", token, retries=retries, http=s.http)


async def test_from_upload_to_deletion(start: Starter, tmp_path: Path) -> None:
    async with start() as s:
        client = client_of(s)
        (tmp_path / 'my "photo".jpg').write_bytes(PHOTO)
        seen: list[tuple[int, int | None]] = []
        receipt = await client.upload(
            tmp_path / 'my "photo".jpg',
            bucket="holiday",
            metadata={"n": 1},
            expires_in=3600,
            progress=lambda *at: seen.append(at),
        )
        assert seen[-1] == (len(PHOTO), len(PHOTO)) and not receipt.replayed
        job = await client.wait(receipt.job_id, 30)
        assert job.status == "completed" and job.has_ended and set(job.ready) == set(job.urls)
        assert job == await client.job(receipt.job_id)
        image = await client.image(receipt.image_id)
        assert image.metadata["n"] == 1 and image.urls == job.urls
        (row,) = await s.sql("SELECT storage_bucket, original_filename, expires_at FROM processing_jobs")
        assert row[0] == "holiday" and "photo" in row[1] and row[2]
        assert await client.delete(receipt.image_id) == 4
        assert (await client.usage())["user"]["images"] == 0
        ticket = await client.ticket(bucket="holiday", uploads=2, max_bytes=5000)
        assert client.absolute(ticket["upload_url"]).endswith(ticket["ticket"])
        with pytest.raises(Refused) as gone:
            await client.image(receipt.image_id)
        assert (gone.value.status, gone.value.code) == (404, "image_not_found")
        assert gone.value.trace_id and gone.value.trace_id in str(gone.value)


@pytest.mark.parametrize("kind", ["bytes", "bytearray", "str", "file", "buffer", "iterator"])
async def test_sources(start: Starter, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(PHOTO)
    made: dict[str, Any] = {
        "bytes": lambda: PHOTO,
        "bytearray": lambda: bytearray(PHOTO),
        "str": lambda: str(file),
        "file": lambda: file.open("rb"),
        "buffer": lambda: io.BytesIO(PHOTO),
        "iterator": lambda: iter([PHOTO[:10], b"", PHOTO[10:]]),
    }
    async with start() as s:
        source = made[kind]()
        receipt = await client_of(s).upload(source, bucket="b")
        assert (await client_of(s).wait(receipt.job_id, 30)).status == "completed"
        if hasattr(source, "close"):
            source.close()


async def test_key_and_failures(start: Starter) -> None:
    async with start() as s:
        client = client_of(s)
        first, again = [await client.upload(PHOTO, bucket="b", key="once") for _ in range(2)]
        assert (first.job_id, again.replayed) == (again.job_id, True)
        with pytest.raises(Refused, match="Unsupported file type") as refused:
            await client.upload(b"no picture at all" * 10, bucket="b")
        assert (refused.value.code, refused.value.status) == ("unsupported_type", 415) and refused.value.reason
        torn = await client.upload(PHOTO[: len(PHOTO) // 2], bucket="b")
        with pytest.raises(JobFailed) as failed:
            await client.wait(torn.job_id, 30)
        assert failed.value.code == "image_unreadable" and not failed.value.retryable
        s.state.jobs.queue.hold()
        held = await client.upload(make.jpeg(64, 48, seed=5), bucket="b")
        with pytest.raises(StillProcessing, match="pending"):
            await client.wait(held.job_id, 0.1)


class Broken:
    def __iter__(self) -> Iterator[bytes]:
        raise OSError("the disk is gone")


class Misbehaving:
    """Answers in turn with what it is given: a status, headers and a body, or an exception."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.keys: list[str] = []
        self.bodies: list[bytes] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.keys.append(request.headers.get("idempotency-key", ""))
        self.bodies.append(request.read())
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        status, headers, body = answer
        return httpx.Response(status, headers=headers, json=body)


RECEIPT: tuple[int, dict[str, str], dict[str, str]] = (202, {}, {"job_id": "j", "image_id": "i", "status_url": "/j"})


def sync(server: Misbehaving, retries: Retries = QUICK) -> Client:
    return Client("http://test", "token", retries=retries, http=httpx.Client(transport=httpx.MockTransport(server)))


def test_an_upload_is_repeated_with_its_key() -> None:
    server = Misbehaving(
        httpx.ConnectError("refused"),
        (503, {"Retry-After": "0"}, {"code": "overloaded"}),
        (409, {"Retry-After": "0"}, {"code": "idempotency_in_progress"}),
        RECEIPT,
    )
    assert sync(server).upload(PHOTO, bucket="b").job_id == "j"
    assert len(set(server.keys)) == 1 and server.keys[0]
    assert len(server.bodies) == 4 and PHOTO in server.bodies[3] and len(set(server.bodies)) == 1


def test_retry_after_is_followed() -> None:
    began = time.monotonic()
    server = Misbehaving((429, {"Retry-After": "1"}, {"code": "rate_limited"}), RECEIPT)
    assert sync(server).upload(PHOTO, bucket="b").image_id == "i"
    assert time.monotonic() - began >= 1
    server = Misbehaving((429, {"Retry-After": "3600"}, {"code": "rate_limited", "detail": "Too many"}))
    with pytest.raises(Refused) as refused:
        sync(server).upload(PHOTO, bucket="b")
    assert refused.value.retry_after == 3600


def test_attempts_end() -> None:
    with pytest.raises(ConnectionFailed, match="refused"):
        sync(Misbehaving(*[httpx.ConnectError("refused")] * 4)).job("j")
    server = Misbehaving((500, {}, {"code": "internal_error"}))
    with pytest.raises(Refused, match="internal_error"):
        sync(server).job("j")
    server = Misbehaving(httpx.ReadError("lost"))
    with pytest.raises(ConnectionFailed):
        sync(server).upload(iter([PHOTO]), bucket="b")  # can't be read twice
    assert server.answers == []


def test_source_that_can_not_be_read() -> None:
    with pytest.raises(ImgsvcError, match="can't be read: the disk is gone"):
        sync(Misbehaving(RECEIPT)).upload(Broken(), bucket="b")


def test_pages_follow_each_other() -> None:
    entry = {"job_id": "j", "status": "completed", "bucket": "b", "created_at": "2026"}
    first = {"images": [entry | {"image_id": "1"}, entry | {"image_id": "2"}], "next": "c"}
    server = Misbehaving((200, {}, first), (200, {}, {"images": [entry | {"image_id": "3"}], "next": None}))
    assert [one.image_id for one in sync(server).images(bucket="b", limit=2)] == ["1", "2", "3"]


def test_webhooks_are_verified() -> None:
    from datetime import UTC, datetime, timedelta

    endpoint = Webhook(name="app", url="https://a.example/", secret=f"{NEXT_SECRET} {SECRET}")  # type: ignore[arg-type]
    body = json.dumps({"type": "image.ready", "timestamp": "2026", "data": {"image_id": "i"}}).encode()
    headers = headers_of("msg_1", datetime.now(UTC), body, endpoint.secret)
    for secret in (SECRET, NEXT_SECRET, [SECRET, NEXT_SECRET]):
        message = verify_webhook(body, headers, secret)
        assert (message.id, message.type, message.data["image_id"]) == ("msg_1", "image.ready", "i")
    old = headers_of("msg_1", datetime.now(UTC) - timedelta(minutes=6), body, endpoint.secret)
    other = "whsec_" + "A" * 40
    for wrong in ((body, headers, other), (body + b" ", headers, SECRET), (body, old, SECRET), (body, {}, SECRET)):
        with pytest.raises(WebhookInvalid):
            verify_webhook(*wrong)


async def test_the_sync_client_against_the_real_application(start: Starter) -> None:
    """By a transport that hands each request to the application's own loop."""
    async with start() as s:

        def answer(request: httpx.Request) -> httpx.Response:
            body = request.read()

            async def ask() -> httpx.Response:
                headers = {name: text for name, text in request.headers.items() if name != "transfer-encoding"}
                return await s.http.request(request.method, str(request.url), headers=headers, content=body)

            found: httpx.Response = anyio.from_thread.run(ask)
            return httpx.Response(found.status_code, headers=found.headers, content=found.content)

        def work() -> None:
            token = s.bearer()["Authorization"].removeprefix("Bearer ")
            transport = httpx.MockTransport(answer)
            with httpx.Client(transport=transport) as http, Client("http://localhost", token, http=http) as client:
                receipt = client.upload(PHOTO, bucket="b")
                assert client.wait(receipt.job_id, 30).status == "completed"
                assert client.delete(receipt.image_id) == 4
                assert client.usage()["user"]["images"] == 0
                assert client.ticket(bucket="b")["ticket"].startswith("imgt_")

        await anyio.to_thread.run_sync(work)
