"""Uploads by address, with a real server at the other end; one that is on this machine only for the test's client."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest

from fixtures import make
from imgsvc.access.guarded_client import GuardedClient
from imgsvc.intake.fetches import MAX_ATTEMPTS, MAX_FETCHES, Fetches, FetchesUsedUp, TooManyFetches
from imgsvc.settings.fetch import Fetch
from tests.conftest import WAIT_SECONDS, Service, Starter
from tests.support.speed import within
from tests.support.tcp_server import serving

PHOTO = make.tiny()
PATH = "/api/v1/images/fetch"
WORDS = "The image could not be fetched from this address."


def answered(status: str, body: bytes, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines, "", ""]).encode() + body


PAGES = {
    "/a.jpg": answered("200 OK", PHOTO, "Content-Type: image/jpeg"),
    "/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(PHOTO) + PHOTO + b"\r\n0\r\n\r\n",
    "/gone": answered("404 Not Found", b""),
    "/moved": answered("302 Found", b"", "Location: /a.jpg"),
    "/gzip": answered("200 OK", PHOTO, "Content-Encoding: gzip"),
    "/short": b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + PHOTO,
    "/text": answered("200 OK", b"no picture at all, but long enough to be looked at" * 10),
    "/declared": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
    "/large": b"HTTP/1.1 200 OK\r\n\r\n" + PHOTO + bytes(2 << 20),
    "/torn": answered("200 OK", PHOTO[:100]),
}


@asynccontextmanager
async def web() -> AsyncIterator[str]:
    """`/slow` begins and never ends."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        if path == "/slow":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + PHOTO[:50])
            await writer.drain()
            await reader.read()
        else:
            writer.write(PAGES[path])
            await writer.drain()

    async with serving(talk) as port:
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def fetching(start: Starter, **sections: dict[str, Any]) -> AsyncIterator[tuple[Service, str]]:
    async with start(**({"fetch": {"allowed_hosts": ["*"]}} | sections)) as s, web() as root:
        s.state.fetching = GuardedClient(allow_private=True)
        yield s, root


async def fetch(s: Service, url: str, user: str = "alice", **more: Any) -> httpx.Response:
    return await s.http.post(PATH, json={"url": url, "bucket": "photos", **more}, headers=s.bearer(user))


async def test_the_receipt_means_what_it_always_means(start: Starter) -> None:
    async with fetching(start) as (s, root):
        for page in ("/a.jpg", "/chunked"):
            answer = await fetch(s, root + page, metadata={"title": "sea"})
            assert answer.status_code == 202 and answer.headers["Location"] == answer.json()["status_url"]
            assert answer.headers["X-RateLimit-Remaining"]
            job = await s.ended(answer)
            assert job["status"] == "completed"
            result = (await s.http.get(f"/api/v1/images/jobs/{job['job_id']}/result")).json()
            assert result["client_metadata"] == {"title": "sea"}
            facts = "SELECT json_extract(metadata, '$.host') FROM image_upload_events WHERE event_type = 'fetched'"
            assert await s.sql(f"{facts} AND job_id = ?", job["job_id"]) == [("127.0.0.1",)]


async def test_every_failure_looks_the_same(start: Starter) -> None:
    """A private address, an unknown name, a closed port, a wrong status, an encoded or a cut body."""
    async with fetching(start) as (s, root):
        urls = [root + page for page in ("/gone", "/moved", "/gzip", "/short")]
        urls += ["http://127.0.0.1:9/a.jpg", "http://nowhere.invalid/a.jpg", "gopher://x/"]
        bodies = [(await fetch(s, url)) for url in urls]
        s.state.fetching = GuardedClient()
        inner = ("https://127.0.0.1/a", "https://10.0.0.1/a", "https://[::ffff:127.0.0.1]/a", f"{root}/a.jpg")
        bodies += [await fetch(s, url) for url in inner]
        for answer in bodies:
            body = answer.json()
            del body["trace_id"]
            assert (answer.status_code, body["code"], body["detail"]) == (422, "fetch_failed", WORDS)
            assert body == {name: value for name, value in bodies[0].json().items() if name != "trace_id"}
        (told,) = await s.sql("SELECT metadata FROM image_upload_events WHERE event_type = 'fetch_failed'")
        assert '"user_id": "alice"' in told[0] and '"reason": "' in told[0]  # one an hour
        assert s.staged() == []


async def test_the_limits_of_uploads(start: Starter) -> None:
    async with fetching(start, uploads={"max_size_mb": 1}) as (s, root):
        for page, status, code in (
            ("/text", 415, "unsupported_type"),
            ("/declared", 413, "upload_too_large"),
            ("/large", 413, "upload_too_large"),
            ("/torn", 422, "image_unreadable"),
        ):
            answer = await fetch(s, root + page)
            assert (answer.status_code, answer.json()["code"]) == (status, code), page
        assert s.staged() == []
        assert await s.sql("SELECT count(*) FROM processing_jobs") == [(0,)]


async def test_only_allowed_hosts(start: Starter) -> None:
    async with fetching(start, fetch={"allowed_hosts": ["*.example.org"]}) as (s, root):
        assert (await fetch(s, f"{root}/a.jpg")).json()["code"] == "fetch_failed"
    async with fetching(start, fetch={}) as (s, root):
        answer = await fetch(s, f"{root}/a.jpg")
        assert (answer.status_code, answer.json()["code"]) == (403, "fetch_disabled")
        assert (await s.http.post(PATH, json={})).status_code == 401


@pytest.mark.parametrize(
    ("allowed", "host", "allows"),
    [
        ("*", "a.example", True),
        ("example.org", "EXAMPLE.org.", True),
        ("example.org", "a.example.org", False),
        ("*.example.org", "a.b.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", "evilexample.org", False),
    ],
)
def test_names(allowed: str, host: str, allows: bool) -> None:
    assert Fetch(allowed_hosts=(allowed,)).allows(host) == allows


@pytest.mark.parametrize(
    "body", [{"url": "https://a/"}, {"url": "", "bucket": "b"}, {"url": "https://a/", "bucket": ".."}]
)
async def test_malformed(start: Starter, body: dict[str, Any]) -> None:
    async with fetching(start) as (s, _):
        answer = await s.http.post(PATH, json=body, headers=s.bearer())
        assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")


async def test_at_once_and_a_client_that_leaves(start: Starter) -> None:
    async with fetching(start) as (s, root):
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(fetch, s, f"{root}/slow")
            with anyio.fail_after(WAIT_SECONDS):
                while s.state.fetches._open.total() < 2:
                    await anyio.sleep(0.01)
            refused = await fetch(s, f"{root}/a.jpg")
            assert (refused.status_code, refused.json()["code"], refused.json()["limit"]) == (503, "overloaded", 2)
            assert (await s.ended(await fetch(s, f"{root}/a.jpg", user="bob")))["status"] == "completed"
            group.cancel_scope.cancel()
        assert s.state.fetches._open.total() == 0

        async def leave() -> Any:
            return next(messages, {"type": "http.disconnect"})

        sent = f'{{"url": "{root}/slow", "bucket": "photos"}}'.encode()
        messages = iter([{"type": "http.request", "body": sent, "more_body": False}])
        headers = {"host": "localhost", "content-type": "application/json", **s.bearer()}
        scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": PATH,
            "query_string": b"",
            "headers": [(name.lower().encode(), text.encode()) for name, text in headers.items()],
            "root_path": "",
        }

        async def send(_message: Any) -> None: ...

        with anyio.fail_after(WAIT_SECONDS):
            await s.app(scope, leave, send)
        with within(WAIT_SECONDS):
            while s.staged():  # bob's goes after its job has ended
                await anyio.sleep(0.01)
        assert s.state.fetches._open.total() == 0


def test_attempts_of_an_hour() -> None:
    fetches = Fetches()
    for _ in range(MAX_ATTEMPTS):
        with fetches.attempt(("org", "alice")):
            pass
    with pytest.raises(FetchesUsedUp) as used_up, fetches.attempt(("org", "alice")):
        pass
    assert 3590 <= used_up.value.retry_after <= 3600
    with fetches.attempt(("org", "bob")):
        pass


def test_eight_in_all() -> None:
    fetches = Fetches()
    with ExitStack() as stack:
        for number in range(MAX_FETCHES):
            stack.enter_context(fetches.attempt(("org", f"user-{number // 2}")))
        with pytest.raises(TooManyFetches):
            stack.enter_context(fetches.attempt(("org", "another")))
