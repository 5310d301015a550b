"""Refusals while the body still comes: in which order, and forms that are broken or break off."""

import asyncio
import json
from collections.abc import AsyncIterator

import anyio
import httpx
import pytest
from starlette.types import Message

from fixtures import make
from tests.conftest import Service, Starter, shared_service
from tests.support.refused import (
    BAD_BUCKET,
    BUCKET,
    DRAINED,
    ENVELOPE,
    FILE,
    LIMIT,
    RAW,
    SETTINGS,
    TEXT,
    TINY,
    TYPE,
    UPLOAD,
    WORDS,
    WRITTEN_AT_ONCE,
    Part,
    assert_nothing_left,
    refused,
    send,
)
from tests.support.speed import within

pytestmark = pytest.mark.asyncio(loop_scope="module")
s = shared_service(**SETTINGS)


class Endless:
    """A body that does not end before 16 MiB; `sent` counts its bytes."""

    def __init__(self, first: bytes) -> None:
        self.first, self.sent = first, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunk = self.first
        while self.sent < 1 << 24:
            self.sent += len(chunk)
            yield chunk
            chunk = bytes(16 * 1024)


def opened(*parts: Part) -> bytes:
    """A form whose last part has no end."""
    request = httpx.Request("POST", "http://x", files=[*parts], headers=TYPE)
    return request.read().removesuffix(b"\r\n--edge--\r\n")


@pytest.mark.parametrize(
    ("first", "headers", "status", "code"),
    [
        (make.bomb(), RAW, 422, "image_too_large"),
        (opened(BUCKET, ("file", ("bomb.png", make.bomb()))), TYPE, 422, "image_too_large"),
        (TEXT, RAW, 415, "unsupported_type"),
        (opened(BUCKET, WORDS), TYPE, 415, "unsupported_type"),
        (opened(BUCKET, FILE), TYPE, 413, "upload_too_large"),
        (opened(FILE, BAD_BUCKET), TYPE, 422, "validation_error"),
        (TINY, RAW | {"Authorization": "Bearer x"}, 401, "token_invalid"),
    ],
    ids=["raw bomb", "bomb", "raw text", "text", "too large", "bad bucket", "bad token"],
)
async def test_answer_comes_before_the_body_ends(
    s: Service, first: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    body = Endless(first)
    with within(10):
        response = await s.http.post(UPLOAD, params={"bucket": "b"}, content=body, headers=s.bearer() | headers)
    refused(s, response, status, code)
    assert response.headers["Connection"] == "close"
    assert DRAINED <= body.sent <= DRAINED + LIMIT + ENVELOPE + 64 * 1024


async def test_rest_is_drained_for_simple_clients(s: Service) -> None:
    response = await send(s, BUCKET, ("file", ("photo.jpg", TEXT + bytes(100_000))))
    refused(s, response, 415, "unsupported_type")
    assert "Connection" not in response.headers


LONG = {"Content-Length": str(LIMIT + ENVELOPE + 1)}
UNSIGNED = {"Authorization": "Bearer x"}


@pytest.mark.parametrize(
    ("parts", "headers", "status", "code"),
    [
        ([BAD_BUCKET, WORDS], LONG | UNSIGNED, 401, "token_invalid"),
        ([BAD_BUCKET, WORDS], LONG, 413, "upload_too_large"),
        ([BAD_BUCKET, WORDS], {}, 422, "validation_error"),
        ([("metadata", (None, b"[]")), WORDS, BUCKET], {}, 422, "validation_error"),
        ([BUCKET, ("file", ("x", TEXT + bytes(LIMIT)))], {}, 415, "unsupported_type"),
        ([BAD_BUCKET, ("file", ("x", TINY + bytes(LIMIT)))], {}, 422, "validation_error"),
        ([BAD_BUCKET, ("file", ("x", make.bomb()))], {}, 422, "validation_error"),
        ([BUCKET, ("file", ("x", make.bomb() + bytes(LIMIT)))], {}, 413, "upload_too_large"),
    ],
)
async def test_which_comes_first(
    s: Service, parts: list[Part], headers: dict[str, str], status: int, code: str
) -> None:
    refused(s, await send(s, *parts, **headers), status, code)


async def test_length_comes_before_the_bucket_of_a_raw_body(s: Service) -> None:
    response = await s.http.post(UPLOAD, content=TINY, headers=s.bearer() | RAW | LONG)
    refused(s, response, 413, "upload_too_large")


FORM = TYPE["Content-Type"]
END = b"--edge--\r\n"


def part(after_name: bytes) -> bytes:
    return b"--edge\r\nContent-Disposition: form-data; name=" + after_name + b"\r\n"


WHOLE_FILE = part(b'"file"; filename="p.jpg"\r\n\r\n' + TINY)
WHOLE = part(b'"bucket"\r\n\r\nb') + WHOLE_FILE
MALFORMED = {
    "no boundary": ("multipart/form-data", WHOLE + END),
    "empty boundary": ("multipart/form-data; boundary=", WHOLE + END),
    "long boundary": ("multipart/form-data; boundary=" + "x" * 5000, WHOLE),
    "odd boundary": ('multipart/form-data; boundary="\xff\xe9', WHOLE),
    "other boundary": ("multipart/form-data; boundary=other", WHOLE + END),
    "never closed": (FORM, WHOLE),
    "closed by half": (FORM, WHOLE + END[:5]),
    "empty": (FORM, b""),
    "only the end": (FORM, END),
    "not a form": (FORM, TINY),
    "cut in a header": (FORM, WHOLE[:40]),
    "1000 parts": (FORM, part(b'"x"\r\n\r\ny') * 1000 + WHOLE + END),
    "giant header": (FORM, part(b'"' + b"x" * 200_000 + b'"\r\n\r\n') + WHOLE + END),
    "1000 headers": (FORM, b"--edge\r\n" + b"X-A: b\r\n" * 1000 + b"\r\n\r\n" + WHOLE + END),
    "bad header": (FORM, b"--edge\r\n\xff\0: b\r\n\r\n\r\n" + WHOLE + END),
    "no disposition": (FORM, b"--edge\r\n\r\n" + TINY + b"\r\n" + END),
    "odd disposition": (FORM, part(b'"\xff"; filename*=x\'%ff\r\n\r\nx') + END),
    "two files": (FORM, WHOLE + WHOLE_FILE + END),
    "two buckets": (FORM, part(b'"bucket"\r\n\r\nb') + WHOLE + END),
}


@pytest.mark.parametrize("chunk", [1 << 20, 1000], ids=["at once", "in chunks"])
@pytest.mark.parametrize(("kind", "body"), MALFORMED.values(), ids=MALFORMED)
async def test_malformed_form(s: Service, kind: str, body: bytes, chunk: int) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), chunk):
            yield body[start : start + chunk]

    headers = [(b"Authorization", s.bearer()["Authorization"].encode()), (b"Content-Type", kind.encode("latin-1"))]
    response = await s.http.post(UPLOAD, content=chunks(), headers=headers)
    refused(s, response, 422, "validation_error")


async def broken_off(s: Service, first: bytes, *then: Message, trickle: bool = False) -> list[Message]:
    """What is sent to a client that sends `first` and `then`, and afterwards next to nothing, or nothing at all."""
    sent: list[Message] = []
    coming = [{"type": "http.request", "body": first, "more_body": True}, *then]

    async def receive() -> Message:
        if coming:
            return coming.pop(0)
        if not trickle:
            await anyio.sleep_forever()
        await anyio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(name.lower().encode(), value.encode()) for name, value in (s.bearer() | TYPE).items()]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": UPLOAD,
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"transfer-encoding", b"chunked"), *headers],
        "root_path": "",
    }
    with within(10):
        await s.app(scope, receive, send)
    return sent


async def test_body_that_stalls_is_dropped(start: Starter) -> None:
    half = opened(BUCKET, ("file", ("photo.jpg", make.jpeg(640, 480))))[:-2000]
    async with start(uploads={"idle_timeout_seconds": 0.3, "min_bytes_per_second": 1 << 20}) as s:
        answers = await asyncio.gather(
            broken_off(s, opened(BUCKET)), broken_off(s, half), broken_off(s, half, trickle=True)
        )
        for start_message, *_, last in answers:
            headers = dict(start_message["headers"])
            assert start_message["status"] == 408
            assert headers[b"connection"] == b"close"
            assert headers[b"content-type"] == b"application/problem+json"
            assert json.loads(last["body"])["code"] == "upload_stalled"
            assert_nothing_left(s, headers[b"x-trace-id"].decode())


@pytest.mark.parametrize("cut", [0, 40, 600, -1, None])
async def test_client_that_is_gone_leaves_nothing(s: Service, cut: int | None) -> None:
    body = opened(BUCKET, ("file", ("photo.jpg", TINY + bytes(WRITTEN_AT_ONCE))))
    answer = await broken_off(s, body[:cut], {"type": "http.disconnect"})
    assert_nothing_left(s, dict(answer[0]["headers"])[b"x-trace-id"].decode())
