"""What every test of a refused upload looks at."""

import http
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import httpx

from fixtures import make
from tests.conftest import Service

UPLOAD = "/api/v1/images/upload"
SECRET = "a secret of these tests, forty characters"
LIMIT = 256 * 1024
ENVELOPE = 128 * 1024
DRAINED = 1 << 20
WRITTEN_AT_ONCE = 128 * 1024
ALLOWED = "Allowed: image/jpeg, image/png, image/webp, image/gif"
MEMBERS = {"type", "title", "status", "detail", "code", "trace_id", "error", "status_code"}
TINY = make.tiny()
TEXT = b"only words " * 60
TYPE = {"Content-Type": "multipart/form-data; boundary=edge"}
RAW = {"Content-Type": "image/jpeg"}

SETTINGS: dict[str, dict[str, Any]] = {
    "uploads": {"max_size_mb": LIMIT / 2**20},
    "auth": {"jwt_secret_key": SECRET},
}
Part = tuple[str, tuple[str | None, bytes]]
FILE: Part = ("file", ("photo.jpg", TINY))
BUCKET: Part = ("bucket", (None, b"photos"))
WORDS: Part = ("file", ("photo.jpg", TEXT))
BAD_BUCKET: Part = ("bucket", (None, b"../etc"))


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
    assert (body["detail"] == "Validation error") == (code == "validation_error")
    if status == 422:
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
