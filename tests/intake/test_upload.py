"""What is accepted, in whatever shape it comes, and the receipt that is given for it."""

import errno
import hashlib
import json
import os
import sqlite3
import stat
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from itertools import permutations
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures import make
from tests.conftest import Service, Starter, shared_service

UPLOAD = "/api/v1/images/upload"
TINY = make.tiny()
LIMIT = 128 * 1024
TYPE = {"Content-Type": "multipart/form-data; boundary=edge"}
PARTS = {
    "file": b'name="file"; filename="p.jpg"\r\nContent-Type: image/jpeg\r\n\r\n' + TINY,
    "bucket": b'name="bucket"\r\n\r\nteam/a.b-c_d',
    "metadata": b'name="metadata"\r\n\r\n' + json.dumps({"title": "Ärger"}, ensure_ascii=False).encode(),
}
shared = shared_service()


def form(*parts: bytes) -> bytes:
    return b"".join(b"--edge\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--edge--\r\n"


def file_of(size: int) -> bytes:
    return TINY + bytes(size - len(TINY))


def row(s: Service, accepted: httpx.Response) -> dict[str, Any]:
    with closing(sqlite3.connect(s.settings.database.path)) as db:
        db.row_factory = sqlite3.Row
        query = "SELECT * FROM processing_jobs WHERE job_id = ?"
        return dict(db.execute(query, [accepted.json()["job_id"]]).fetchone())


def rows(s: Service) -> int:
    with closing(sqlite3.connect(s.settings.database.path)) as db:
        return int(db.execute("SELECT count(*) FROM processing_jobs").fetchone()[0])


def assert_kept(s: Service, accepted: httpx.Response, data: bytes = TINY) -> dict[str, Any]:
    """The row describes exactly these bytes."""
    assert accepted.status_code == 202, accepted.text
    kept = row(s, accepted)
    assert kept["sha256"] == hashlib.sha256(data).hexdigest()
    assert kept["content_length"] == len(data)
    return kept


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def test_receipt(start: Starter) -> None:
    async with start() as s:
        response = await s.upload(TINY)
        assert response.status_code == 202
        body = response.json()
        assert str(uuid.UUID(body["job_id"])) == body["job_id"]
        assert str(uuid.UUID(body["image_id"])) == body["image_id"] != body["job_id"]
        assert body["status_url"] == f"/api/v1/images/jobs/{body['job_id']}" == response.headers["Location"]
        assert body["message"] == "Upload accepted. Processing initiated."
        assert response.headers["Content-Type"] == "application/json"
        assert response.headers["Cache-Control"] == "private, no-store"
        assert response.headers["Vary"] == "Authorization"
        assert (await s.http.get(body["status_url"])).json()["image_id"] == body["image_id"]
        kept = assert_kept(s, response)
        assert (kept["storage_bucket"], kept["client_metadata"], kept["mime_type"]) == ("photos", "{}", "image/jpeg")
        assert (kept["user_id"], kept["org_id"]) == ("alice", "default-org")
        await s.ended(response)
        again = await s.upload(TINY)
        assert again.json()["image_id"] != body["image_id"]
        await s.ended(again)


async def test_parts_in_every_order(start: Starter) -> None:
    async with start() as s:
        headers = s.bearer() | TYPE
        for order in permutations(PARTS):
            accepted = await s.http.post(UPLOAD, content=form(*map(PARTS.__getitem__, order)), headers=headers)
            kept = assert_kept(s, accepted)
            assert kept["storage_bucket"] == "team/a.b-c_d", order
            assert json.loads(kept["client_metadata"]) == {"title": "Ärger"}, order
        for order in permutations(["file", "bucket"]):
            accepted = await s.http.post(UPLOAD, content=form(*map(PARTS.__getitem__, order)), headers=headers)
            assert assert_kept(s, accepted)["client_metadata"] == "{}", order
        unknown = form(b'name="csrf"\r\n\r\nx', PARTS["file"], PARTS["bucket"], b"filename=x\r\n\r\ny")
        assert_kept(s, await s.http.post(UPLOAD, content=unknown, headers=headers))


async def test_chunks_of_any_size_without_a_length(start: Starter) -> None:
    body = form(*PARTS.values())
    async with start() as s:
        for size in (1, 7, 1000, len(body)):
            response = await s.http.post(UPLOAD, content=pieces(body, size), headers=s.bearer() | TYPE)
            assert "Content-Length" not in response.request.headers
            assert_kept(s, response)
        raw = s.bearer() | {"Content-Type": "image/jpeg"}
        response = await s.http.post(UPLOAD, params={"bucket": "b"}, content=pieces(TINY, 3), headers=raw)
        assert_kept(s, response)


async def test_raw_body(start: Starter) -> None:
    async with start() as s:
        headers = s.bearer() | {"Content-Type": "image/png"}  # what it is decides, not what it is called
        response = await s.http.post(UPLOAD, params={"bucket": "a/b"}, content=TINY, headers=headers)
        kept = assert_kept(s, response)
        assert (kept["storage_bucket"], kept["client_metadata"]) == ("a/b", "{}")
        assert kept["mime_type"] == "image/jpeg"
        metadata = json.dumps({"title": "Ärger", "n": 1}, ensure_ascii=False).encode()
        sent = [*((name.encode(), value.encode()) for name, value in headers.items()), (b"X-Metadata", metadata)]
        response = await s.http.post(UPLOAD, params={"bucket": "c"}, content=TINY, headers=sent)
        assert json.loads(assert_kept(s, response)["client_metadata"]) == {"title": "Ärger", "n": 1}
        assert (await s.ended(response))["status"] == "completed"


@pytest.mark.parametrize("raw", [False, True], ids=["multipart", "raw"])
async def test_limit_is_on_the_bytes_of_the_file(start: Starter, raw: bool) -> None:
    async with start(uploads={"max_size_mb": LIMIT / 2**20}) as s:

        async def send(data: bytes, chunk: int = 0, **more: str) -> httpx.Response:
            body = data if raw else form(PARTS["bucket"], PARTS["file"] + data[len(TINY) :], PARTS["metadata"])
            headers = s.bearer() | ({"Content-Type": "image/jpeg"} if raw else TYPE)
            content = pieces(body, chunk) if chunk else body
            return await s.http.post(UPLOAD, params={"bucket": "b", **more}, content=content, headers=headers)

        for chunk in (0, 4096):
            exact = await send(file_of(LIMIT), chunk)
            assert_kept(s, exact, file_of(LIMIT))
            assert (await s.ended(exact))["status"] == "completed"
            refused = await send(file_of(LIMIT + 1), chunk, max_size_mb="99", max_bytes="999999999")
            assert refused.status_code == 413
            problem = refused.json()
            assert problem["code"] == "upload_too_large"
            assert problem["detail"] == "File too large. Maximum allowed: 0.125MB"
            assert problem["limit_bytes"] == LIMIT < problem["measured_bytes"]
            assert set(s.staged()) <= {exact.json()["job_id"]}
        assert rows(s) == 2


async def test_metadata_and_bucket_at_their_limits(start: Starter) -> None:
    empty = len(json.dumps({"text": ""}))
    largest = json.dumps({"text": "x" * (16 * 1024 - empty)})
    async with start() as s:
        for bucket in ("a", "9", "A" * 63, "a/b/c/d/e", "a.b/c-d/e_f", "a-", "b."):
            kept = assert_kept(s, await s.upload(TINY, bucket=bucket, metadata=largest))
            assert kept["storage_bucket"] == bucket
            assert json.loads(kept["client_metadata"]) == json.loads(largest)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (rb"../../etc/passwd.jpg", "passwd.jpg"),
        (rb"/var/tmp/a.jpg", "a.jpg"),
        (rb"C:\Users\me\b.jpg", "b.jpg"),
        (rb"..\..\c.jpg", "c.jpg"),
        ("фото.jpg".encode(), "фото.jpg"),
        (b"a\tb\x1b[31m.jpg", "ab[31m.jpg"),
        (b"x" * 1000, "x" * 255),
        (b"\xff.jpg", "\ufffd.jpg"),
    ],
)
async def test_file_name_is_stripped(shared: Service, sent: bytes, kept: str) -> None:
    part = b'name="file"; filename="' + sent + b'"\r\n\r\n' + TINY
    accepted = await shared.http.post(UPLOAD, content=form(part, PARTS["bucket"]), headers=shared.bearer() | TYPE)
    assert assert_kept(shared, accepted)["original_filename"] == kept
    assert not any("jpg" in name for name in shared.staged())


@pytest.mark.parametrize("fails", [stat.S_ISREG, stat.S_ISDIR], ids=["file", "folder"])
async def test_row_is_undone_if_the_upload_can_not_be_synced(
    start: Starter, monkeypatch: pytest.MonkeyPatch, fails: Callable[[int], bool]
) -> None:
    """Its statements are made while file and folder are synced."""
    photo, fsync, failed = file_of(200_000), os.fsync, list[int]()

    def refused(descriptor: int) -> None:
        if fails(os.fstat(descriptor).st_mode) and "/staging" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            failed.append(descriptor)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    async with start() as s:
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", refused)
            answer = await s.upload(photo)
        assert (answer.status_code, answer.json()["code"], len(failed)) == (503, "overloaded", 1)
        assert (rows(s), s.staged()) == (0, [])
        assert_kept(s, await s.upload(photo), photo)
        assert rows(s) == 1
