"""What is removed and when, what is never touched, and when nothing new is taken."""

import asyncio
import shutil
from collections import namedtuple
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from fixtures import make
from imgsvc.jobs.model import as_text, now
from tests.conftest import WAIT_SECONDS, Service, Starter

TINY = make.jpeg(64, 48)
UPLOAD = "/api/v1/images/upload?bucket=b"
OLD = as_text(now() - timedelta(days=10))


async def failed_but_retryable(s: Service) -> dict[str, Any]:
    """A job that failed because the storage folder is a file."""
    job = await s.ended(await s.upload(TINY))
    assert (job["status"], job["error_code"], job["retryable"]) == ("failed", "storage_error", True)
    return job


@pytest.fixture
def no_storage(tmp_path: Path) -> Path:
    """The folder of the bucket can't be made, even by root."""
    path = tmp_path / "data" / "storage" / "photos"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


async def test_source_of_a_failed_job_is_kept_for_a_while(start: Starter, no_storage: Path) -> None:
    async with start(jobs={"max_attempts": 1}) as s:
        job, other = await failed_but_retryable(s), await failed_but_retryable(s)
        day = timedelta(hours=24)
        for one, age in ((job, day + timedelta(minutes=1)), (other, day - timedelta(minutes=1))):
            await s.sql(
                "UPDATE processing_jobs SET failed_at = ? WHERE job_id = ?", as_text(now() - age), one["job_id"]
            )
        assert s.staged() == sorted([job["job_id"], other["job_id"]])
        await s.parts.housekeeping.sweep()
        assert s.staged() == [other["job_id"]]
        assert (await s.job(job["job_id"]))["retryable"] is False
        assert (await s.job(job["job_id"]))["error_code"] == "storage_error"
        assert (await s.job(other["job_id"]))["retryable"] is True


async def test_source_of_a_failed_job_may_be_kept_for_no_time(start: Starter, no_storage: Path) -> None:
    async with start(jobs={"max_attempts": 1, "failed_source_hours": 0}) as s:
        job = await failed_but_retryable(s)
        await s.parts.housekeeping.sweep()
        assert s.staged() == []
        assert (await s.job(job["job_id"]))["retryable"] is False


async def test_source_of_a_hopeless_job_goes_at_once(start: Starter) -> None:
    async with start() as s:
        job = await s.ended(await s.upload(make.jpeg(1000, 800)[:-500]))
        assert (job["status"], job["retryable"]) == ("failed", False)
        with anyio.fail_after(WAIT_SECONDS):
            while s.staged():
                await anyio.sleep(0.01)


async def test_orphans_go_and_the_rest_stays(start: Starter) -> None:
    async with start() as s:
        s.parts.queue.hold()
        waiting = (await s.upload(TINY)).json()["job_id"]
        staging = s.settings.data / "staging"
        (staging / "no-such-job").write_bytes(TINY)
        (staging / ".hidden").write_bytes(b"")
        await s.parts.housekeeping.sweep()
        assert s.staged() == [waiting]


async def test_what_cannot_be_removed_keeps_nothing_else(start: Starter) -> None:
    """A staging folder that is a disk of its own has a folder lost+found."""
    async with start(jobs={"events_days": 1}) as s:
        (s.settings.data / "staging" / "lost+found").mkdir()
        await s.sql("INSERT INTO image_upload_events (event_type, created_at) VALUES ('old', ?)", OLD)
        await s.sql("INSERT INTO upload_rate_limits VALUES ('o', 'old', ?, 3)", OLD)
        await s.parts.housekeeping.sweep()
        assert await s.sql("SELECT * FROM image_upload_events") == []
        assert await s.sql("SELECT * FROM upload_rate_limits") == []
        assert (s.settings.data / "staging" / "lost+found").is_dir()


async def test_old_windows_and_events_go(start: Starter) -> None:
    async with start(jobs={"events_days": 9}, rate_limit={"window_minutes": 60}) as s:
        job = await s.completed(TINY)
        recent = as_text(now() - timedelta(days=8))
        for moment, many in ((OLD, 250), (recent, 2)):
            for _ in range(many):
                await s.sql("INSERT INTO image_upload_events (event_type, created_at) VALUES ('x', ?)", moment)
        for user, age in (("over", 61), ("current", 59)):
            moment = as_text(now() - timedelta(minutes=age))
            await s.sql("INSERT INTO upload_rate_limits VALUES ('o', ?, ?, 3)", user, moment)
        await s.parts.housekeeping.sweep()
        assert await s.sql("SELECT count(*) FROM image_upload_events WHERE event_type = 'x'") == [(2,)]
        kept = await s.sql("SELECT event_type FROM image_upload_events WHERE job_id = ?", job["job_id"])
        assert {kind for (kind,) in kept} >= {"accepted", "completed"}
        assert await s.sql("SELECT user_id FROM upload_rate_limits ORDER BY 1") == [("alice",), ("current",)]


async def test_upload_that_is_still_coming_is_never_touched(start: Starter) -> None:
    data = make.jpeg(1600, 1200, quality=95)
    half_sent, go_on = anyio.Event(), anyio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield data[: len(data) // 2]
        half_sent.set()
        await go_on.wait()
        yield data[len(data) // 2 :]

    async with start() as s:
        headers = s.bearer() | {"Content-Type": "image/jpeg"}
        sending = asyncio.create_task(s.http.post(UPLOAD, content=body(), headers=headers))
        await half_sent.wait()
        with anyio.fail_after(WAIT_SECONDS):
            while not s.staged():
                await anyio.sleep(0.01)
        before = s.staged()
        for _ in range(3):
            await s.parts.housekeeping.sweep()
            assert s.staged() == before
        go_on.set()
        assert (await s.ended(await sending))["status"] == "completed"


def refused(response: httpx.Response, status: int, code: str, **more: int) -> None:
    assert (response.status_code, response.json().get("code")) == (status, code)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert int(response.headers["Retry-After"]) > 0
    assert response.json().items() >= more.items()


async def test_backlog_limit(start: Starter) -> None:
    async with start(jobs={"max_waiting": 3}) as s:
        s.parts.queue.hold()
        accepted = [await s.upload(TINY) for _ in range(3)]
        assert [response.status_code for response in accepted] == [202] * 3
        for user in ("alice", "bob"):
            refused(await s.upload(TINY, user=user), 503, "overloaded", limit=3, measured=3)
        assert len(s.staged()) == 3
        assert await s.sql("SELECT count(*) FROM processing_jobs") == [(3,)]
        assert await s.sql("SELECT user_id, upload_count FROM upload_rate_limits") == [("alice", 3)]
        one = accepted[0].json()["image_id"]
        assert (await s.http.delete(f"/api/v1/images/{one}", headers=s.bearer())).status_code == 200
        assert (await s.upload(TINY)).status_code == 202


async def test_backlog_counts_what_waits_for_its_render(start: Starter) -> None:
    slow = make.jpeg(4000, 3000)
    async with start(jobs={"max_waiting": 2}, rate_limit={"max_uploads": 100}) as s:
        answers = []
        for _ in range(12):
            accepted = await s.upload(slow)
            answers.append(accepted.status_code)
            if accepted.status_code == 202:
                job_id = accepted.json()["job_id"]
                with anyio.fail_after(30):
                    while "thumbnail" not in (await s.job(job_id))["ready"]:
                        await anyio.sleep(0.01)
        assert 503 in answers


async def test_full_disk(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    async with start(storage={"reserve_mb": 100}) as s:
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, 1 << 40, (100 << 20) - 1))
            await s.parts.health.measure()
            refused(await s.upload(TINY), 507, "storage_full", limit_bytes=100 << 20, measured_bytes=(100 << 20) - 1)
            report = await s.http.get("/api/v1/health")
            assert (report.status_code, report.json()["status"]) == (503, "unhealthy")
            assert report.json()["checks"]["disk"]["status"] == "unhealthy"
            assert s.staged() == []
            assert await s.sql("SELECT * FROM upload_rate_limits") == []
            patch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, 1 << 39, 100 << 20))
            await s.parts.health.measure()
            assert (await s.http.get("/api/v1/health")).status_code == 200
            assert (await s.ended(await s.upload(TINY)))["status"] == "completed"
