"""Every refusal of an upload: its status, code and words, in the order of the contract, leaving nothing behind."""

import asyncio
import http
import json
import sqlite3
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from typing import Any

import anyio
import httpx
import pytest
import pytest_asyncio
from joserfc import jwt
from joserfc.jwk import OctKey
from starlette.types import Message

from fixtures import make
from tests.conftest import Service, Starter, service

pytestmark = pytest.mark.asyncio(loop_scope="module")

UPLOAD = "/api/v1/images/upload"
SECRET = "a secret of these tests, forty characters"
LIMIT = 256 * 1024
ENVELOPE = 128 * 1024
DRAINED = 1 << 20
WRITTEN_AT_ONCE = 128 * 1024
ALLOWED = "Allowed: image/jpeg, image/png, image/webp"
MEMBERS = {"type", "title", "status", "detail", "code", "trace_id", "error", "status_code"}
TINY = make.jpeg(64, 48)
TEXT = b"only words " * 60
TYPE = {"Content-Type": "multipart/form-data; boundary=edge"}
RAW = {"Content-Type": "image/jpeg"}

Part = tuple[str, tuple[str | None, bytes]]
FILE: Part = ("file", ("photo.jpg", TINY))
BUCKET: Part = ("bucket", (None, b"photos"))
WORDS: Part = ("file", ("photo.jpg", TEXT))
BAD_BUCKET: Part = ("bucket", (None, b"../etc"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def s(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """One service for all of them, since a refusal changes nothing; held by one task, as its cancel scopes want."""
    started, over = asyncio.Queue[Service](), asyncio.Event()
    uploads = {"max_size_mb": LIMIT / 2**20}

    async def hold() -> None:
        async with service(tmp_path_factory.mktemp("data"), uploads=uploads, auth={"jwt_secret_key": SECRET}) as one:
            started.put_nowait(one)
            await over.wait()

    holder, first = asyncio.create_task(hold()), asyncio.create_task(started.get())
    await asyncio.wait({holder, first}, return_when=asyncio.FIRST_COMPLETED)
    if holder.done():
        await holder
    yield await first
    over.set()
    await holder


async def send(s: Service, *parts: Part, **headers: str) -> httpx.Response:
    return await s.http.post(UPLOAD, files=[*parts], headers=s.bearer() | headers)


def refused(s: Service, response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem, which is whole, says nothing of the inside, and is all that there is of the upload."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Cache-Control"] == "private, no-store"
    body: dict[str, Any] = response.json()
    assert body.keys() >= MEMBERS
    assert body["status"] == body["status_code"] == status
    assert body["title"] == http.HTTPStatus(status).phrase
    assert body["detail"] == body["error"] != ""
    assert body["code"] == code
    assert body["type"] == f"/errors/{code}"
    assert body["trace_id"] == response.headers["X-Trace-ID"]
    for inside in (str(s.settings.data), "/tmp", "Traceback", ".py", "sqlite", "SELECT", "multipart.", "Error("):
        assert inside not in response.text
    if code == "validation_error":
        assert body["detail"] == "Validation error"
        assert body["details"]
        assert all(one.keys() == {"loc", "msg", "type"} for one in body["details"])
    assert_nothing_left(s, body["trace_id"])
    return body


def assert_nothing_left(s: Service, trace_id: str) -> None:
    with closing(sqlite3.connect(s.settings.database.path)) as db:
        rows = dict(db.execute("SELECT job_id, trace_id FROM processing_jobs"))
    assert trace_id not in rows.values()
    assert set(s.staged()) <= rows.keys()


def located(problem: Mapping[str, Any]) -> list[list[str]]:
    return [detail["loc"] for detail in problem["details"]]


def token(**claims: Any) -> str:
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET))


def unsigned() -> str:
    parts = (b'{"alg":"none"}', b'{"sub":"alice"}', b"")
    return b".".join(urlsafe_b64encode(part).rstrip(b"=") for part in parts).decode()


@pytest.mark.parametrize(
    ("header", "code", "detail"),
    [
        (None, "token_missing", "Not authenticated"),
        ("", "token_missing", "Not authenticated"),
        ("Bearer", "token_missing", "Not authenticated"),
        ("Bearer ", "token_missing", "Not authenticated"),
        ("Basic YWxpY2U6eA==", "token_missing", "Not authenticated"),
        ("Bearer nonsense", "token_invalid", "Invalid token"),
        ("Bearer a.b.c", "token_invalid", "Invalid token"),
        ("Bearer " + "x" * 20_000, "token_invalid", "Invalid token"),
        (f"Bearer {unsigned()}", "token_invalid", "Invalid token"),
        (f"Bearer {token(sub='alice')[:-4]}AAAA", "token_invalid", "Invalid token"),
        (f"Bearer {token()}", "token_invalid", "Invalid token"),
        (f"Bearer {token(sub=7)}", "token_invalid", "Invalid token"),
        (f"Bearer {token(sub='')}", "token_invalid", "Invalid token"),
        (f"Bearer {token(sub='alice', nbf=99999999999)}", "token_invalid", "Invalid token"),
        (f"Bearer {token(sub='alice', exp='soon')}", "token_invalid", "Invalid token"),
        (f"Bearer {token(sub='alice', exp=1)}", "token_expired", "Token expired"),
    ],
)
async def test_token(s: Service, header: str | None, code: str, detail: str) -> None:
    headers = {} if header is None else {"Authorization": header}
    response = await s.http.post(UPLOAD, files=[BUCKET, FILE], headers=headers)
    assert refused(s, response, 401, code)["detail"] == detail
    challenge = response.headers["WWW-Authenticate"]
    assert challenge.startswith("Bearer ")
    assert ('error="invalid_token"' in challenge) == (code != "token_missing")


@pytest.mark.parametrize("header", [b"Bearer \xff\xfe", b"Bearer caf\xc3\xa9.x.y"])
async def test_token_that_is_not_ascii(s: Service, header: bytes) -> None:
    response = await s.http.post(UPLOAD, files=[BUCKET, FILE], headers=[(b"Authorization", header)])
    refused(s, response, 401, "token_invalid")


@pytest.mark.parametrize(
    ("data", "mime"),
    [
        (TEXT, "application/octet-stream"),
        (b"hi", "application/octet-stream"),
        (b"", "application/x-empty"),
        (make.animation("GIF"), "image/gif"),
        (make.encoded(make.quadrants(), "TIFF"), "image/tiff"),
        (b"%PDF-1.7\n" + TEXT, "application/pdf"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>" + TEXT, "application/octet-stream"),
    ],
    ids=["text", "short", "empty", "gif", "tiff", "pdf", "svg"],
)
@pytest.mark.parametrize("raw", [False, True], ids=["multipart", "raw"])
async def test_type(s: Service, data: bytes, mime: str, raw: bool) -> None:
    if raw:
        response = await s.http.post(UPLOAD, params={"bucket": "b"}, content=data, headers=s.bearer() | RAW)
    else:
        response = await send(s, BUCKET, ("file", ("photo.jpg", data)))
    problem = refused(s, response, 415, "unsupported_type")
    assert problem["detail"] == f"Unsupported file type: {mime}. {ALLOWED}"


@pytest.mark.parametrize(
    ("parts", "missing"),
    [
        ([BUCKET], [["body", "file"]]),
        ([FILE], [["body", "bucket"]]),
        ([("metadata", (None, b"{}"))], [["body", "file"], ["body", "bucket"]]),
        ([("File", ("photo.jpg", TINY)), BUCKET], [["body", "file"]]),
    ],
)
async def test_missing_part(s: Service, parts: list[Part], missing: list[list[str]]) -> None:
    problem = refused(s, await send(s, *parts), 422, "validation_error")
    assert located(problem) == missing
    assert {detail["type"] for detail in problem["details"]} == {"missing"}


@pytest.mark.parametrize("kind", ["", "text/plain", "application/json", "application/x-www-form-urlencoded", "image"])
async def test_neither_a_form_nor_an_image(s: Service, kind: str) -> None:
    headers = s.bearer() | {"Content-Type": kind}
    response = await s.http.post(UPLOAD, params={"bucket": "b"}, content=TINY, headers=headers)
    assert ["body", "file"] in located(refused(s, response, 422, "validation_error"))


BUCKETS = [
    "",
    "..",
    "../photos",
    "photos/..",
    "photos/../etc",
    "a..b",
    ".",
    ".hidden",
    "a/.hidden",
    "-a",
    "_a",
    "/",
    "/photos",
    "photos/",
    "a//b",
    "a/b/c/d/e/f",
    "a" * 64,
    "x" * 20_000,
    "фото",
    "photos\u0661",
    "a\0b",
    "photos\0",
    "photos\n",
    "a b",
    "a\\b",
    "..\\etc",
    "%2e%2e",
    "a%2Fb",
    "a%00",
    "a;b",
    "C:",
]


@pytest.mark.parametrize("bucket", BUCKETS, ids=lambda bucket: ascii(bucket)[:20])
async def test_bucket(s: Service, bucket: str) -> None:
    response = await send(s, ("bucket", (None, bucket.encode())), FILE)
    assert located(refused(s, response, 422, "validation_error")) == [["body", "bucket"]]
    response = await s.http.post(UPLOAD, params={"bucket": bucket}, content=TINY, headers=s.bearer() | RAW)
    assert located(refused(s, response, 422, "validation_error")) == [["query", "bucket"]]


@pytest.mark.parametrize("query", ["", "Bucket=b", "bucket=%2e%2e%2fetc", "bucket=%ff", "bucket=a%00b"])
async def test_bucket_in_the_query(s: Service, query: str) -> None:
    response = await s.http.post(f"{UPLOAD}?{query}", content=TINY, headers=s.bearer() | RAW)
    assert located(refused(s, response, 422, "validation_error")) == [["query", "bucket"]]


METADATA = {
    "not JSON": b"title=x",
    "cut off": b'{"a": 1',
    "two": b"{} {}",
    "list": b"[]",
    "number": b"1",
    "null": b"null",
    "text": b'"x"',
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": [-Infinity]}',
    "beyond a float": b'{"a": 1e999}',
    "too large": b'{"a": "' + b"x" * 16 * 1024 + b'"}',
    "too large for a part": b'{"a": "' + b"x" * 100_000 + b'"}',
    "deep": b'{"a":' + b"[" * 8000 + b"]" * 8000 + b"}",
    "deep objects": b'{"a":' * 2500 + b"1" + b"}" * 2500,
    "lone surrogate": rb'{"a": "\ud800"}',
    "lone surrogate as a key": rb'{"a": [{"\udfff": 1}]}',
    "invalid UTF-8": b'{"a": "\xff"}',
    "surrogate in UTF-8": b'{"a": "\xed\xa0\x80"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "digits without end": b'{"a": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("metadata", METADATA.values(), ids=METADATA)
async def test_metadata(s: Service, metadata: bytes) -> None:
    response = await send(s, BUCKET, ("metadata", (None, metadata)), FILE)
    assert located(refused(s, response, 422, "validation_error")) == [["body", "metadata"]]
    headers = {**s.bearer(), **RAW}
    sent = [*((name.encode(), value.encode()) for name, value in headers.items()), (b"X-Metadata", metadata)]
    response = await s.http.post(UPLOAD, params={"bucket": "b"}, content=TINY, headers=sent)
    assert located(refused(s, response, 422, "validation_error")) == [["header", "x-metadata"]]


async def test_larger_than_the_limit(s: Service) -> None:
    large = TINY + bytes(LIMIT + 1 - len(TINY))
    for response in (
        await send(s, BUCKET, ("file", ("photo.jpg", large))),
        await s.http.post(UPLOAD, params={"bucket": "b"}, content=large, headers=s.bearer() | RAW),
        await send(s, BUCKET, FILE, ("notes", (None, bytes(LIMIT + ENVELOPE)))),
    ):
        problem = refused(s, response, 413, "upload_too_large")
        assert problem["detail"] == "File too large. Maximum allowed: 0.25MB"
        assert problem["limit_bytes"] == LIMIT < problem["measured_bytes"]


PNG = b"\x89PNG\r\n\x1a\n"
WEBP = make.encoded(make.quadrants(), "WEBP")


@pytest.mark.parametrize(
    "data",
    [
        TINY[:3],
        TINY[:100],
        TINY[: TINY.index(b"\xff\xc0") + 8],
        TINY[:2] + TINY[TINY.index(b"\xff\xda") :],
        PNG,
        PNG + make.png_chunk(b"IHDR", bytes(13)),
        make.png(0, 10, 8, 2, b""),
        make.png(10, 10, 8, 5, b""),
        WEBP[:25],
        WEBP[:12] + b"VP8?" + WEBP[16:],
    ],
    ids=lambda data: f"{len(data)} bytes of {data[:4]!r}",
)
async def test_unreadable_header(s: Service, data: bytes) -> None:
    problem = refused(s, await send(s, BUCKET, ("file", ("photo.jpg", data))), 422, "image_unreadable")
    assert len(problem["detail"]) > 20


async def test_too_many_pixels(s: Service) -> None:
    problem = refused(s, await send(s, BUCKET, ("file", ("bomb.png", make.bomb()))), 422, "image_too_large")
    assert "900.0 megapixels" in problem["detail"] and "at most 50 megapixels" in problem["detail"]


async def test_too_many_frames(start: Starter) -> None:
    async with start(images={"max_frames": 2}) as s:
        file = ("file", ("a.webp", make.animation("WEBP", 3)))
        problem = refused(s, await send(s, BUCKET, file), 422, "image_too_large")
        assert "3 frames" in problem["detail"] and "at most 2" in problem["detail"]


async def test_too_much_memory(start: Starter) -> None:
    async with start(workers={"memory_mb": 200}) as s:
        file = ("file", ("a.png", make.png(7000, 7000, 8, 2, b"")))
        problem = refused(s, await send(s, BUCKET, file), 422, "image_too_large")
        assert "memory" in problem["detail"] and "at most 90 MB" in problem["detail"]


async def test_disk_under_its_reserve(start: Starter) -> None:
    async with start(storage={"reserve_mb": 1 << 40}) as s:
        refused(s, await send(s, BUCKET, FILE), 507, "storage_full")
        refused(s, await send(s, BAD_BUCKET, WORDS), 507, "storage_full")
        refused(s, await send(s, BUCKET, FILE, **{"Content-Length": str(1 << 40)}), 413, "upload_too_large")


async def test_stopping(start: Starter) -> None:
    async with start() as s:
        s.parts.wind_down()
        response = await send(s, BUCKET, FILE)
        refused(s, response, 503, "overloaded")
        assert int(response.headers["Retry-After"]) > 0


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
    with anyio.fail_after(10):
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
        "headers": [(b"host", b"localhost"), *headers],
        "root_path": "",
    }
    with anyio.fail_after(10):
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
