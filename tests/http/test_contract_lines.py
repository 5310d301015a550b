"""Lines of the contract that no larger test is about."""

import re
import uuid
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from fixtures import make
from imgsvc import Settings
from imgsvc.jobs.table.sql import QUERIES
from imgsvc.telemetry import health
from imgsvc.telemetry.health import EVERY_SECONDS
from tests.conftest import WAIT_SECONDS, Starter
from tests.support.issuer import by_hmac
from tests.support.speed import seconds, within
from tests.support.traffic import go_on

PROMISES = Path(__file__).parents[2] / "docs" / "background" / "promises.md"
TINY = make.tiny()
HEALTH = "/api/v1/health"
COLUMNS = {
    "processing_jobs": "job_id image_id status storage_bucket staging_path processed_paths processing_metadata "
    "attempt_count max_retries last_error created_at started_at completed_at",
    "image_upload_events": "event_type image_id job_id metadata created_at",
    "upload_rate_limits": "user_id window_start upload_count",
}


def test_defaults() -> None:
    settings = Settings()
    assert (settings.rate_limit.max_uploads, settings.rate_limit.window_minutes) == (50, 60)
    assert settings.uploads.max_bytes == 10 * 1024 * 1024


async def test_size_limit_in_words(start: Starter) -> None:
    async with start() as s:
        headers = {"Content-Type": "image/jpeg", "Content-Length": str(11 << 20), **s.bearer()}
        refused = await s.http.post("/api/v1/images/upload", params={"bucket": "b"}, content=b"", headers=headers)
        assert (refused.status_code, "Maximum allowed: 10MB" in refused.json()["detail"]) == (413, True)


async def test_rate_limit_is_told_before_a_full_backlog_or_disk(start: Starter) -> None:
    async with start(rate_limit={"max_uploads": 1}, jobs={"max_waiting": 1}) as s:
        s.state.jobs.queue.hold()
        assert (await s.upload(TINY)).status_code == 202
        s.state.telemetry.disk.disk_full = True
        assert (await s.upload(TINY)).status_code == 429
        assert (await s.upload(TINY, user="bob")).status_code == 503


async def test_token_with_nothing_but_a_subject(start: Starter) -> None:
    async with start() as s:
        secret = s.settings.data / "jwt_secret"
        bearer = {"Authorization": f"Bearer {by_hmac(secret.read_bytes().strip(), 'HS256', {'sub': 'alice'})}"}
        files = {"file": ("a.jpg", TINY)}
        receipt = await s.http.post("/api/v1/images/upload", data={"bucket": "b"}, files=files, headers=bearer)
        image_id = (await s.ended(receipt))["image_id"]
        assert uuid.UUID(image_id).version == 4
        assert (await s.http.delete(f"/api/v1/images/{image_id}", headers=bearer)).status_code == 200


async def test_public_reading_opens_figures_and_no_deletion(start: Starter) -> None:
    async with start(operator={"public": True}) as s:
        assert (await s.http.get("/metrics")).status_code == 200
        assert (await s.http.get(f"{HEALTH}/auth")).status_code == 200
        assert (await s.http.delete("/api/v1/operator/permissions/default-org/alice")).status_code == 401


async def test_stats_name_nobody(start: Starter) -> None:
    async with start() as s:
        job = await s.completed(TINY, user="a-user", bucket="a-bucket")
        text = (await s.http.get(f"{HEALTH}/stats")).text
        assert not [word for word in ("a-user", "a-bucket", job["job_id"], job["image_id"]) if word in text]


async def test_failed_jobs_are_fifty_unless_said_otherwise(start: Starter) -> None:
    async with start(jobs={"max_attempts": 1}) as s:
        await s.completed(TINY)
        columns = [row[1] for row in await s.sql("PRAGMA table_info(processing_jobs)")]
        copied = ", ".join(
            {"job_id": "printf('%032d', value)", "image_id": "printf('1%031d', value)", "status": "'failed'"}.get(c, c)
            for c in columns
        )
        await s.sql(
            "WITH RECURSIVE many(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM many WHERE value < 60) "
            f"INSERT INTO processing_jobs ({', '.join(columns)}) SELECT {copied} FROM processing_jobs, many"
        )
        assert len((await s.http.get(f"{HEALTH}/failed")).json()["failed_jobs"]) == 50


async def test_old_queue_degrades_only(start: Starter) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        assert (await s.upload(TINY)).status_code == 202
        await s.sql("UPDATE processing_jobs SET created_at = '2020-01-01T00:00:00.000000+00:00'")
        await s.state.telemetry.health.measure()
        answer = await s.http.get(HEALTH)
        body = answer.json()
        assert (answer.status_code, body["status"], body["checks"]["queue"]["status"]) == (200, "degraded", "degraded")


async def test_database_that_takes_nothing_is_unhealthy(start: Starter) -> None:
    async with start() as s:
        await s.sql("ALTER TABLE image_upload_events RENAME TO gone")
        await s.state.telemetry.health.measure()
        answer = await s.http.get(HEALTH)
        body = answer.json()
        assert (answer.status_code, body["checks"]["database"]["status"]) == (503, "unhealthy")
        await s.sql("ALTER TABLE gone RENAME TO image_upload_events")


async def test_health_is_found_out_in_the_background_and_told_for_nothing(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert EVERY_SECONDS == 5
    monkeypatch.setattr(health, "EVERY_SECONDS", seconds(1))
    async with start() as s:
        await s.sql("ALTER TABLE image_upload_events RENAME TO gone")
        answers = [await s.http.get(HEALTH) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200] * 3  # the database was not tried since
        with within(WAIT_SECONDS):
            while (answer := await s.http.get(HEALTH)).status_code == 200:
                await anyio.sleep(0.1)
        assert answer.json()["checks"]["database"]["age_seconds"] < EVERY_SECONDS
        await s.sql("ALTER TABLE gone RENAME TO image_upload_events")


async def test_dashboard_lists_ten_at_most(start: Starter) -> None:
    async with start(jobs={"max_attempts": 1}, rate_limit={"max_uploads": 1}) as s:
        users = [f"user-{number}" for number in range(12)]
        jobs = [await s.ended(await s.upload(make.jpeg(640, 480)[:9000], user=user)) for user in users]
        assert {job["status"] for job in jobs} == {"failed"}
        body = (await s.http.get("/dashboard/data", headers=s.operator)).json()
        assert len(body["processing"]["recent_jobs"]) == 10
        assert len(body["errors"]["recent_failures"]) == 10
        assert len(body["rate_limits"]["users_near_limit"]) == 10


@pytest.mark.workers
@pytest.mark.workers
async def test_line_about_a_source_that_can_not_be_read_carries_the_id_of_the_upload(start: Starter) -> None:
    async with start(jobs={"max_attempts": 1}) as s:
        s.state.jobs.queue.hold()
        headers = s.bearer() | {"X-Trace-ID": "from-the-client", "Content-Type": "image/jpeg"}
        accepted = await s.http.post("/api/v1/images/upload", params={"bucket": "b"}, content=TINY, headers=headers)
        staged = s.settings.data / "staging" / accepted.json()["job_id"]
        staged.unlink()
        staged.mkdir()
        with capture_logs() as logs:
            go_on(s)
            assert (await s.ended(accepted))["error_code"] == "io_error"
        said = [entry for entry in logs if entry["event"] == "io_error"]
        assert said and {entry["trace_id"] for entry in said} == {"from-the-client"}


def test_audit_is_only_added_to() -> None:
    """Until an event's time is over; the health check takes back what it wrote to see that it can."""
    changing = [name for name, text in QUERIES.items() if re.search(r"(UPDATE|DELETE FROM|REPLACE INTO) image_u", text)]
    erasing = ["erase_events", "erase_events_of_job"]  # the names of a person
    assert sorted(changing) == ["drop_events", *erasing, "untouch"]


def test_edge_of_a_fixed_window_is_said() -> None:
    assert "up to twice the limit can pass around the edge of two windows" in PROMISES.read_text()


async def test_three_tables_with_the_columns_that_operators_query(start: Starter) -> None:
    async with start() as s:
        tables = await s.sql("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
        others = {"service_instance", "job_sums", "job_minutes", "job_counting", "job_sources", "source_sums"}
        others |= {"renders", "retired_keys", "operator_sessions"}
        others |= {"webhook_endpoints", "webhook_outbox", "webhook_attempts"}
        others |= {"usage", "api_keys", "upload_tickets"}
        others |= {"erasures", "erased_jobs", "job_hours", "queue_minutes", "render_tasks", "render_findings"}
        assert {name for (name,) in tables} == COLUMNS.keys() | others
        for table, columns in COLUMNS.items():
            assert set(columns.split()) <= {row[1] for row in await s.sql(f"PRAGMA table_info({table})")}


async def test_module_for_browsers_can_be_imported_by_any_page(start: Starter) -> None:
    for origins in ([], ["https://app.example"], ["*"]):
        async with start(server={"cors_origins": origins}) as s:
            for origin in ("https://app.example", "https://other.example"):
                module = await s.http.get("/static/imgsvc.js", headers={"Origin": origin})
                assert module.headers["Content-Type"] == "text/javascript; charset=utf-8"
                assert module.headers["Access-Control-Allow-Origin"] == "*"
                assert module.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
                again = {"Origin": origin, "If-None-Match": module.headers["ETag"]}
                unchanged = await s.http.get("/static/imgsvc.js", headers=again)
                assert (unchanged.status_code, unchanged.headers["Access-Control-Allow-Origin"]) == (304, "*")
