"""Every refusal of an upload: its status, code and words, leaving nothing behind."""

from base64 import urlsafe_b64encode
from datetime import timedelta
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

import imgsvc.jobs.denials as of_audit
from fixtures import make
from imgsvc.jobs.table.model import now
from imgsvc.service.runner import wind_down
from tests.conftest import Service, Starter, shared_service
from tests.support.refused import (
    ALLOWED,
    BAD_BUCKET,
    BUCKET,
    ENVELOPE,
    FILE,
    LIMIT,
    RAW,
    SECRET,
    SETTINGS,
    TEXT,
    TINY,
    UPLOAD,
    WORDS,
    Part,
    located,
    refused,
    send,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
s = shared_service(**SETTINGS)


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
        (make.encoded(make.quadrants(), "TIFF"), "image/tiff"),
        (b"%PDF-1.7\n" + TEXT, "application/pdf"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>" + TEXT, "image/svg+xml"),
    ],
    ids=["text", "short", "empty", "tiff", "pdf", "svg"],
)
@pytest.mark.parametrize("raw", [False, True], ids=["multipart", "raw"])
async def test_type(s: Service, data: bytes, mime: str, raw: bool) -> None:
    if raw:
        response = await s.http.post(UPLOAD, params={"bucket": "b"}, content=data, headers=s.bearer() | RAW)
    else:
        response = await send(s, BUCKET, ("file", ("photo.jpg", data)))
    problem = refused(s, response, 415, "unsupported_type")
    assert problem["detail"] == f"Unsupported file type: {mime}. {ALLOWED}"
    assert problem["reason"].startswith("This is ") and problem["reason"].endswith(".")


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


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "application/x-www-form-urlencoded", "image"])
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


async def test_frames_that_are_not_decoded_are_no_reason_to_refuse(start: Starter) -> None:
    async with start(images={"max_frames": 2}) as s:
        file = ("file", ("a.webp", make.animation("WEBP", 3)))
        assert (await send(s, BUCKET, file)).status_code == 202


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
        wind_down(s.state)
        response = await send(s, BUCKET, FILE)
        refused(s, response, 503, "overloaded")
        assert int(response.headers["Retry-After"]) > 0


async def test_refusal_that_goes_on_is_not_the_first_to_be_forgotten(
    s: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_audit, "MAX_RECORDED", 2)
    refusals, over = of_audit.Denials(s.state.jobs.table), now() - timedelta(seconds=1)
    await refusals.record("upload_denied", "org", "goes-on", until=over)
    await refusals.record("upload_denied", "org", "second")
    await refusals.record("upload_denied", "org", "goes-on")  # the hour is over: it is recorded again
    await refusals.record("upload_denied", "org", "third")
    for user in ("goes-on", "goes-on", "third"):
        await refusals.record("upload_denied", "org", user)
    rows = await s.sql(
        "SELECT json_extract(metadata, '$.user_id') FROM image_upload_events "
        "WHERE event_type = 'upload_denied' ORDER BY id"
    )
    assert [row[0] for row in rows[-4:]] == ["goes-on", "second", "goes-on", "third"]
