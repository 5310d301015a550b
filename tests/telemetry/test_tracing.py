"""What surrounds every answer: its trace id, its headers, and errors that the router itself gives."""

import sqlite3
import uuid
from contextlib import closing

import anyio
import anyio.to_thread
import httpx
import pytest
from structlog.testing import capture_logs

from fixtures import make
from tests.conftest import WAIT_SECONDS, Service, Starter
from tests.support.speed import within

TINY = make.tiny()
LIVE = "/api/v1/health/live"
HEALTH = "/api/v1/health"
UPLOAD = "/api/v1/images/upload"
UNKNOWN = "6dfb1ae8-4a5c-4b7e-8b38-0f6d5c2f7a10"


async def trace_ids(s: Service, path: str = LIVE, **headers: str) -> str:
    """The id that an answer carries under both of its names."""
    sent = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    response = await s.http.get(path, headers=sent)
    trace_id = response.headers["X-Trace-ID"]
    assert response.headers["X-Correlation-ID"] == trace_id
    assert response.headers.get_list("X-Trace-ID") == [trace_id]
    return trace_id


async def test_id_is_taken_from_the_request(start: Starter) -> None:
    async with start() as s:
        for good in ("a", "x" * 128, "Az09._:-", str(uuid.uuid4())):
            assert await trace_ids(s, X_Trace_ID=good) == good
            assert await trace_ids(s, X_Correlation_ID=good) == good
            assert await trace_ids(s, "/nothing", X_Trace_ID=good) == good
        assert await trace_ids(s, X_Trace_ID="one", X_Correlation_ID="two") == "one"
        assert await trace_ids(s, X_Trace_ID="not valid", X_Correlation_ID="two") == "two"


async def test_invalid_id_is_replaced(start: Starter) -> None:
    async with start() as s:
        seen = {await trace_ids(s), await trace_ids(s, "/nothing")}
        for bad in ("", " ", "a b", "x" * 129, "a\n", "a;b", "<b>", "a/b", "\u00e4", "a\0"):
            seen.add(await trace_ids(s, X_Trace_ID=bad, X_Correlation_ID=bad))
        assert len(seen) == 12
        assert {str(uuid.UUID(trace_id)) for trace_id in seen} == seen


async def test_job_and_its_log_carry_the_id_of_the_upload(start: Starter) -> None:
    async with start() as s:
        with capture_logs() as logs:
            files = {"file": ("photo.jpg", TINY)}
            headers = s.bearer() | {"X-Trace-ID": "from-the-client"}
            accepted = await s.http.post(UPLOAD, data={"bucket": "b"}, files=files, headers=headers)
            job = await s.ended(accepted)
            with within(WAIT_SECONDS):
                while s.staged():  # the last thing that a job does
                    await anyio.sleep(0.01)
        assert accepted.headers["X-Trace-ID"] == "from-the-client"
        of_job = {entry["event"]: entry["trace_id"] for entry in logs if entry.get("job_id") == job["job_id"]}
        assert set(of_job) == {"job_accepted", "job_processing", "preview_ready", "job_completed"}
        assert set(of_job.values()) == {"from-the-client"}
        with closing(sqlite3.connect(s.settings.database.path)) as db:
            assert db.execute("SELECT trace_id FROM processing_jobs").fetchall() == [("from-the-client",)]
            facts = db.execute("SELECT DISTINCT metadata ->> 'trace_id' FROM image_upload_events")
            assert facts.fetchall() == [("from-the-client",)]


async def answers(s: Service) -> dict[int, httpx.Response]:
    """One answer of each status, by status."""
    job = await s.completed(TINY)
    bytes_of_it = f"/api/v1/images/{job['image_id']}/direct"
    whole = await s.http.get(bytes_of_it)
    s.state.jobs.queue.hold()
    waiting = (await s.upload(TINY)).json()["status_url"]
    all_of_them = [
        whole,
        await s.upload(TINY),
        await s.http.get(bytes_of_it, headers={"Range": "bytes=0-1"}),
        await s.http.get(bytes_of_it, headers={"If-None-Match": whole.headers["ETag"]}),
        await s.http.post(UPLOAD),
        await s.http.get("/nothing"),
        await s.http.delete(UPLOAD),
        await s.http.get(f"{waiting}/result"),
        await s.http.post(UPLOAD, headers=s.bearer() | {"Content-Length": str(1 << 40)}),
        await s.upload(b"words"),
        await s.http.get(bytes_of_it, headers={"Range": "bytes=99999999-"}),
        await s.upload(TINY, bucket=".."),
    ]
    return {response.status_code: response for response in all_of_them}


async def test_headers_of_every_answer(start: Starter) -> None:
    async with start() as s:
        by_status = await answers(s)
        assert sorted(by_status) == [200, 202, 206, 304, 401, 404, 405, 409, 413, 415, 416, 422]
        for status, response in by_status.items():
            headers = response.headers
            assert str(uuid.UUID(headers["X-Trace-ID"])) == headers["X-Correlation-ID"], status
            assert headers.get_list("X-Content-Type-Options") == ["nosniff"], status
            assert not [name for name in headers if name.startswith("access-control")], status
            assert "Server" not in headers and "X-Powered-By" not in headers, status
            if status >= 400:
                assert headers["Content-Type"] == "application/problem+json", status
                assert headers["Cache-Control"] == "private, no-store", status
                assert response.json()["trace_id"] == headers["X-Trace-ID"], status


async def test_no_other_origin_is_allowed(start: Starter) -> None:
    async with start() as s:
        for method in ("GET", "OPTIONS"):
            asking = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
            response = await s.http.request(method, HEALTH, headers=asking)
            assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", HEALTH, {"GET", "HEAD"}),
        ("DELETE", LIVE, {"GET", "HEAD"}),
        ("PUT", UPLOAD, {"POST"}),
        ("PATCH", f"/api/v1/images/jobs/{UNKNOWN}", {"GET", "HEAD"}),
        ("POST", f"/api/v1/images/jobs/{UNKNOWN}/result", {"GET", "HEAD"}),
        ("POST", f"/api/v1/images/{UNKNOWN}/direct", {"GET", "HEAD"}),
        ("PUT", "/storage/a/b", {"GET", "HEAD"}),
        ("BREW", LIVE, {"GET", "HEAD"}),
    ],
)
async def test_wrong_method(start: Starter, method: str, path: str, allowed: set[str]) -> None:
    async with start() as s:
        response = await s.http.request(method, path)
        assert response.status_code == 405
        assert set(response.headers["Allow"].split(", ")) == allowed
        assert response.headers["Content-Type"] == "application/problem+json"
        problem = response.json()
        assert (problem["code"], problem["title"]) == ("method_not_allowed", "Method Not Allowed")
        assert problem["type"] == "/errors/method_not_allowed"


async def test_unknown_path(start: Starter) -> None:
    async with start() as s:
        for path in ("/nothing", "/api", "/api/v1/images/", "/api/v2/health", "/api/v1/healthy", "//", "/%00", "/%ff"):
            response = await s.http.get(f"http://localhost{path}")
            assert response.status_code == 404, path
            assert response.headers["Content-Type"] == "application/problem+json"
            problem = response.json()
            assert (problem["code"], problem["status_code"], problem["title"]) == ("not_found", 404, "Not Found")
            assert problem["detail"] == problem["error"] != ""
            assert problem["trace_id"] == response.headers["X-Trace-ID"]


async def test_health(start: Starter) -> None:
    async with start(service={"name": "pictures"}) as s:
        for path in (HEALTH, f"{HEALTH}/"):
            response = await s.http.get(path)
            assert response.status_code == 200
            assert response.headers["Cache-Control"] == "private, no-store"
            body = response.json()
            assert (body["status"], body["service"]) == ("healthy", "pictures")
            assert body.keys() >= {"version", "timestamp"}
            assert body["checks"].keys() >= {"database", "storage", "workers", "disk", "queue"}
            assert {check["status"] for check in body["checks"].values()} == {"healthy"}
        assert (await s.http.get(LIVE)).json() == {"status": "alive"}
    async with start(storage={"reserve_mb": 1 << 40}) as s:
        response = await s.http.get(HEALTH)
        assert (response.status_code, response.json()["status"]) == (503, "unhealthy")
        assert response.headers["Content-Type"] == "application/json"
        assert (await s.http.get(LIVE)).status_code == 200


def execute(s: Service, sql: str) -> None:
    with closing(sqlite3.connect(s.settings.database.path)) as db:
        db.execute(sql)


async def test_what_breaks_inside_stays_inside(start: Starter) -> None:
    async with start() as s:
        await anyio.to_thread.run_sync(execute, s, "ALTER TABLE processing_jobs RENAME TO away")
        response = await s.http.get(f"/api/v1/images/{uuid.uuid4()}", headers={"X-Trace-ID": "broken"})
        await anyio.to_thread.run_sync(execute, s, "ALTER TABLE away RENAME TO processing_jobs")
        assert response.status_code in (500, 503)
        assert response.headers["Content-Type"] == "application/problem+json"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.json()["trace_id"] == response.headers["X-Trace-ID"] == "broken"
        for inside in ("processing_jobs", "SELECT", "sqlite", "Traceback", ".py", str(s.settings.data)):
            assert inside not in response.text
        assert (await s.completed(TINY))["status"] == "completed"
