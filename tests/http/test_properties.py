"""Whatever a client may send: the same right answer, or a refusal, and never a crash."""

import json
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from fixtures import make
from imgsvc.http.wire.problems import Problem
from imgsvc.http.wire.upload_fields import BUCKET, BUCKET_SEGMENT, METADATA, METADATA_BYTES, field_value
from tests.conftest import Service, shared_service

pytestmark = pytest.mark.asyncio(loop_scope="module")

TINY = make.tiny()
UPLOAD = "/api/v1/images/upload"
LIVE = "/api/v1/health/live"
SERVER_KEYS = {"detected_mime_type", "content_length", "dominant_color", "thumbhash", "original_dimensions", "variants"}
HIDDEN_KEYS = {"uploader_id", "org_id", "original_filename", "animated", "frames"}
few = settings(deadline=None, database=None, max_examples=30)
many = settings(deadline=None, database=None, max_examples=80)

segments = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True).filter(lambda text: ".." not in text)
buckets = st.lists(segments, min_size=1, max_size=5).map("/".join)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4))
names = texts | st.sampled_from(sorted(SERVER_KEYS | HIDDEN_KEYS))
objects = st.dictionaries(names, values, max_size=6).filter(lambda found: len(json.dumps(found)) <= METADATA_BYTES)
header_texts = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=200)
s = shared_service()


@dataclass(repr=False)
class Stored:
    """The path of a stored variant, and its bytes."""

    path: str
    whole: bytes


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def image(s: Service) -> Stored:
    job = await s.completed(make.jpeg(200, 150))
    return Stored(f"/api/v1/images/{job['image_id']}/direct", await s.variant(job["image_id"], "medium"))


def refused(kind: TypeAdapter[Any], text: str) -> bool:
    """Whether a field refuses `text`, as 422. Whatever else it raises is a crash."""
    try:
        field_value(kind, text, "field")
    except Problem as problem:
        return problem.status == 422
    return False


def accepts(bucket: str) -> bool:
    return not refused(BUCKET, bucket)


@many
@given(buckets)
async def test_good_bucket(bucket: str) -> None:
    assert accepts(bucket)


@many
@given(st.text() | st.lists(st.sampled_from([*"aZ0._-/\\~%\n\0", ".."]), max_size=12).map("".join))
@example("a" * 64)
@example("a/b/c/d/e/f")
@example("a\n")
@example("a..b")
@example("a//b")
@example("")
async def test_any_bucket(bucket: str) -> None:
    parts = bucket.split("/")
    good = len(parts) <= 5 and ".." not in bucket and all(BUCKET_SEGMENT.fullmatch(part) for part in parts)
    assert accepts(bucket) == good


async def raw(s: Service, body: bytes = TINY, bucket: str = "b", **headers: str) -> httpx.Response:
    sent = (
        s.bearer() | {"Content-Type": "image/jpeg"} | {name.replace("_", "-"): text for name, text in headers.items()}
    )
    encoded = [(name.encode(), text.encode()) for name, text in sent.items()]
    return await s.http.post(f"{UPLOAD}?bucket={quote(bucket, safe='')}", content=body, headers=encoded)


@few
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80) | buckets)
async def test_bucket_on_the_wire(s: Service, bucket: str) -> None:
    response = await raw(s, bucket=bucket)
    assert response.status_code == (202 if accepts(bucket) else 422), bucket


@many
@given(objects)
async def test_metadata_is_taken_as_it_is(metadata: dict[str, Any]) -> None:
    for text in (json.dumps(metadata), json.dumps(metadata, ensure_ascii=False), json.dumps(metadata, indent=1)):
        if len(text.encode()) <= METADATA_BYTES:
            assert json.dumps(field_value(METADATA, text, "metadata")) == json.dumps(metadata)


not_objects = st.one_of(
    st.recursive(leaves, st.lists).map(json.dumps),
    objects.filter(bool).map(lambda found: json.dumps(found)[:-1]),
    st.sampled_from(["NaN", '{"a": NaN}', "[" * 9999, "{" * 99, '{"a": 1e999}', "\ufeff{}", '{"\\ud800": 1}']),
)


@many
@given(not_objects)
async def test_other_metadata_is_refused(text: str) -> None:
    assert refused(METADATA, text)


@settings(deadline=None, database=None, max_examples=15)
@given(objects)
async def test_metadata_comes_back(s: Service, metadata: dict[str, Any]) -> None:
    fields = {"bucket": "b", "metadata": json.dumps(metadata)}
    accepted = await s.http.post(UPLOAD, data=fields, files={"file": ("p.jpg", TINY)}, headers=s.bearer())
    job = await s.ended(accepted)
    shown = (await s.http.get(f"/api/v1/images/jobs/{job['job_id']}/result")).json()["metadata"]
    assert (shown["content_length"], shown["detected_mime_type"]) == (len(TINY), "image/jpeg")
    assert set(shown["variants"]) == {"thumbnail", "medium", "large", "original"}
    rest = {name: value for name, value in metadata.items() if name not in SERVER_KEYS | HIDDEN_KEYS}
    assert {name: shown[name] for name in shown.keys() - SERVER_KEYS} == rest


numbers = st.integers(0, 3000) | st.integers(0, 10**25)
ranges = st.one_of(
    st.builds("bytes={}-{}".format, numbers, numbers),
    st.builds("bytes={}-".format, numbers),
    st.builds("bytes=-{}".format, numbers),
    st.builds("bytes={}-{},{}-".format, numbers, numbers, numbers),
    st.builds("{}={}-{}".format, st.sampled_from(["bytes", "Bytes", "items", "", "bytes "]), numbers, numbers),
    header_texts,
)


def expected_slice(text: str, size: int) -> tuple[int, int] | None:
    """RFC 9110 section 14.1.2, by the book: (first, last) of one range; None where there is none."""
    match = re.fullmatch(r"\s*bytes=[ \t]*([0-9]*)-([0-9]*)\s*", text)
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size - 1 if int(last) else -1
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last), size - 1) if last else size - 1


@many
@given(ranges)
@example("bytes=1 0-2 0")
@example("bytes= 1-2 ")
async def test_range(s: Service, image: Stored, text: str) -> None:
    whole = image.whole
    response = await s.http.get(image.path, headers=[(b"Range", text.encode("latin-1"))])
    found = expected_slice(text, len(whole))
    assert response.status_code in (200, 206, 416)
    if response.status_code == 200:
        assert response.content == whole
        longest = max((len(part) for part in re.findall(r"\d+", text)), default=0)
        assert found in (None, (0, len(whole) - 1)) or longest > 18
    elif response.status_code == 206:
        assert found
        first, last = found
        assert response.content == whole[first : last + 1] != b""
        assert response.headers["Content-Range"] == f"bytes {first}-{last}/{len(whole)}"
        assert response.headers["Content-Length"] == str(last - first + 1)
    else:
        assert found and (found[0] >= len(whole) or found[1] < found[0])
        assert response.headers["Content-Range"] == f"bytes */{len(whole)}"


ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.uuids(version=4).map(str)


@few
@given(ids.filter(lambda text: text not in ("upload", "batch", "jobs", ".", "..")))
async def test_id_in_a_path(s: Service, text: str) -> None:
    name = quote(text, safe="")
    for path in ("images/{}", "images/{}/all", "images/{}/direct", "images/jobs/{}", "images/jobs/{}/result"):
        response = await s.http.get(f"http://localhost/api/v1/{path.format(name)}")
        assert response.status_code == 404, path
        assert response.headers["Content-Type"] == "application/problem+json"
    assert (await s.http.delete(f"http://localhost/api/v1/images/{name}", headers=s.bearer())).status_code == 404
    for path in ("/errors/", "/storage/", "/storage/b/processed/medium/"):
        assert (await s.http.get(f"http://localhost{path}{name}")).status_code == 404


BOUNDARY = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'()+_,-./:=?"
boundaries = st.text(BOUNDARY, min_size=1, max_size=70)
extras = st.tuples(st.sampled_from(["note", "", "File", "bucket[]", "größe"]), st.binary(max_size=300))


async def post_form(s: Service, boundary: str, body: bytes, cuts: list[int]) -> httpx.Response:
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]

    async def chunks() -> AsyncIterator[bytes]:
        for begin, end in pairwise(edges):
            yield body[begin:end]

    headers = s.bearer() | {"Content-Type": f'multipart/form-data; boundary="{boundary}"'}
    return await s.http.post(UPLOAD, content=chunks(), headers=headers)


@few
@given(st.data(), boundaries, st.lists(st.integers(0, 1 << 20), max_size=30), st.lists(extras, max_size=4))
async def test_form_in_any_shape(
    s: Service, data: st.DataObject, boundary: str, cuts: list[int], more: list[tuple[str, bytes]]
) -> None:
    parts = [("file", TINY), ("bucket", b"b"), ("metadata", b'{"a": 1}'), *more]
    body = b""
    for name, content in data.draw(st.permutations(parts)):
        filename = '; filename="p.jpg"' if name == "file" else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'
        if f"\r\n--{boundary}".encode() in b"\r\n" + content:
            return
        body += head.encode() + content + b"\r\n"
    response = await post_form(s, boundary, body + f"--{boundary}--\r\n".encode(), cuts)
    assert response.status_code == 202, response.text
    job = await s.state.jobs.table.job(response.json()["job_id"])
    assert job and (job.content_length, job.storage_bucket, job.client_metadata) == (len(TINY), "b", {"a": 1})


pieces = st.sampled_from(
    [
        b"--edge\r\n",
        b"--edge--",
        b"\r\n",
        b"\r\n\r\n",
        b'Content-Disposition: form-data; name="file"',
        TINY,
        b"--edge",
        b":",
    ]
)


@few
@given(st.lists(pieces | st.binary(max_size=40), max_size=12).map(b"".join), st.lists(st.integers(0, 9999), max_size=5))
async def test_garbage_is_refused(s: Service, body: bytes, cuts: list[int]) -> None:
    assert 400 <= (await post_form(s, "edge", body, cuts)).status_code < 500


@few
@given(st.binary(max_size=600) | st.binary(max_size=300).map(lambda tail: TINY[:300] + tail), header_texts)
async def test_garbage_of_any_type_is_refused(s: Service, body: bytes, kind: str) -> None:
    for content_type in (kind, f"multipart/form-data;{kind}", f"image/{kind}"):
        encoded = [
            (b"Content-Type", content_type.encode("latin-1")),
            (b"Authorization", s.bearer()["Authorization"].encode()),
        ]
        response = await s.http.post(f"{UPLOAD}?bucket=b", content=body, headers=encoded)
        assert 400 <= response.status_code < 500, content_type


@few
@given(
    st.text(st.characters(min_codepoint=32, max_codepoint=255), min_size=1, max_size=255).filter(
        lambda text: text.strip()
    )
)
async def test_idempotency_key(s: Service, text: str) -> None:
    key = f"{uuid.uuid4()} {text}"[:255]
    first, again = await raw(s, Idempotency_Key=key), await raw(s, Idempotency_Key=key)
    assert (first.status_code, again.status_code) in ((202, 202), (422, 422))
    assert (first.status_code == 202) == (len(key.encode()) <= 255)  # bytes of the header, each a character
    if first.status_code == 202:
        assert first.json() == again.json()
        assert again.headers["Idempotency-Replayed"] == "true" and "Idempotency-Replayed" not in first.headers
        assert (await raw(s, make.jpeg(32, 32), Idempotency_Key=key)).status_code == 422


@many
@given(header_texts | st.from_regex(r"[A-Za-z0-9._:-]{1,130}", fullmatch=True))
async def test_trace_id(s: Service, text: str) -> None:
    response = await s.http.get(LIVE, headers=[(b"X-Trace-ID", text.encode("latin-1"))])
    found = response.headers["X-Trace-ID"]
    assert response.status_code == 200
    assert found == response.headers["X-Correlation-ID"]
    if re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", text):
        assert found == text
    else:
        assert str(uuid.UUID(found)) == found
