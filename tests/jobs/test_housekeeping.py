"""What is removed and when, what is never touched, and when nothing new is taken."""

import asyncio
import os
import shutil
import time
import uuid
from collections import namedtuple
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from structlog.testing import capture_logs

from fixtures import make
from imgsvc.intake.staging import PART
from imgsvc.jobs import housekeeping
from imgsvc.jobs.table.database import Readers
from imgsvc.jobs.table.model import as_text, now
from tests.conftest import WAIT_SECONDS, Service, Starter
from tests.support.maintenance import carried_out
from tests.support.speed import within

TINY = make.tiny()
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
        await s.state.jobs.housekeeping.sweep()
        assert s.staged() == [other["job_id"]]
        assert (await s.job(job["job_id"]))["retryable"] is False
        assert (await s.job(job["job_id"]))["error_code"] == "storage_error"
        assert (await s.job(other["job_id"]))["retryable"] is True


async def test_source_of_a_failed_job_may_be_kept_for_no_time(start: Starter, no_storage: Path) -> None:
    async with start(jobs={"max_attempts": 1, "failed_source_hours": 0}) as s:
        job = await failed_but_retryable(s)
        await s.state.jobs.housekeeping.sweep()
        assert s.staged() == []
        assert (await s.job(job["job_id"]))["retryable"] is False


async def test_source_of_a_hopeless_job_goes_at_once(start: Starter) -> None:
    async with start() as s:
        job = await s.ended(await s.upload(make.jpeg(1000, 800)[:80_000]))
        assert (job["status"], job["retryable"]) == ("failed", False)
        with within(WAIT_SECONDS):
            while s.staged():
                await anyio.sleep(0.01)


def ids(many: int) -> list[str]:
    return [str(uuid.UUID(int=number + (4 << 76) + (8 << 60))) for number in range(many)]


async def test_half_an_upload_goes_and_a_whole_one_without_a_row_is_set_aside(start: Starter) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        waiting = (await s.upload(TINY)).json()["job_id"]
        staging, orphaned = s.settings.data / "staging", s.settings.data / "orphaned"
        half, whole = ids(2)
        (staging / f"{half}.part").write_bytes(TINY[:9])
        (staging / whole).write_bytes(TINY)
        os.utime(staging / whole, (0, 0))
        (staging / "of somebody else").write_bytes(b"")
        with capture_logs() as lines:
            for _ in range(2):
                await s.state.jobs.housekeeping.sweep()
        assert s.staged() == sorted([waiting, "of somebody else"])
        assert [line["name"] for line in lines if line["event"] == "foreign_file_in_staging"] == ["of somebody else"]
        assert {path.name: path.read_bytes() for path in orphaned.iterdir()} == {whole: TINY}

        await s.state.telemetry.health.measure()
        assert "1 uploads are set aside" in (await s.http.get("/api/v1/health")).json()["checks"]["staging"]["detail"]
        page = (await s.http.get("/dashboard/data", headers=s.operator)).json()
        assert page["storage"]["set_aside"] == {"files": 1, "bytes": len(TINY)}
        assert "image_uploads_set_aside 1.0" in (await s.http.get("/metrics", headers=s.operator)).text
        assert (await carried_out(s, "verify"))["counts"]["set_aside"] == 1

        week = timedelta(days=7).total_seconds()
        for age, left in ((week - 60, [whole]), (week + 60, [])):
            os.utime(orphaned / whole, (time.time() - age,) * 2)
            await s.state.jobs.housekeeping.sweep()
            assert [path.name for path in orphaned.iterdir()] == left


async def test_source_whose_removal_was_recorded_and_lost_is_removed_again(start: Starter) -> None:
    """Its bytes were to go once the job was done: they are not set aside."""
    async with start() as s:
        job_id = (await s.completed(TINY))["job_id"]
        with within(WAIT_SECONDS):
            while s.staged():
                await anyio.sleep(0.01)
        (s.settings.data / "staging" / job_id).write_bytes(TINY)
        await s.state.jobs.housekeeping.sweep()
        assert s.staged() == [] and not (s.settings.data / "orphaned").exists()


async def test_half_file_of_a_row_is_kept(start: Starter) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        job_id = (await s.upload(TINY)).json()["job_id"]
        staging = s.settings.data / "staging"
        (staging / job_id).rename(staging / f"{job_id}.part")
        await s.state.jobs.housekeeping.sweep()
        assert s.staged() == [f"{job_id}.part"]


async def test_one_query_for_many_staged_files(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    async with start() as s:
        for job_id in ids(700):
            (s.settings.data / "staging" / f"{job_id}.part").write_bytes(b"")
        asked, fetch = list[str](), Readers.fetch

        async def counted(readers: Readers, query: str, parameters: dict[str, Any]) -> list[Any]:
            asked.append(query)
            return await fetch(readers, query, parameters)

        monkeypatch.setattr(Readers, "fetch", counted)
        await s.state.jobs.housekeeping.sweep()
        assert s.staged() == []
        assert asked.count("wanting_source") <= 6  # that of the start may be at it too


async def test_staging_folder_that_was_removed_is_made_anew(start: Starter) -> None:
    async with start() as s:
        shutil.rmtree(s.settings.data / "staging")
        assert (await s.completed(TINY))["status"] == "completed"
        shutil.rmtree(s.settings.data / "staging")
        await s.state.telemetry.health.measure()
        found = (await s.http.get("/api/v1/health")).json()
        assert found["checks"]["staging"]["status"] == found["status"] == "degraded"
        await s.state.telemetry.health.measure()
        assert (await s.http.get("/api/v1/health")).json()["status"] == "healthy"


async def test_health_sees_whose_the_folders_are(start: Starter) -> None:
    async with start() as s:
        (s.settings.data / "instance").write_text(ids(1)[0])
        await s.state.telemetry.health.measure()
        assert (await s.http.get("/api/v1/health")).json()["checks"]["instance"]["status"] == "unhealthy"


async def test_upload_whose_folder_is_removed_meanwhile_is_asked_for_again(start: Starter) -> None:
    half_sent, go_on = asyncio.Event(), asyncio.Event()
    photo = make.jpeg(400, 300)
    photo += bytes(2 * PART - len(photo))  # more than is collected in memory

    async def body() -> AsyncIterator[bytes]:
        yield photo[:-10]
        half_sent.set()
        await go_on.wait()
        yield photo[-10:]

    async with start() as s:
        headers = {**s.bearer(), "Content-Type": "image/jpeg"}
        sending = asyncio.create_task(s.http.post(UPLOAD, content=body(), headers=headers))
        await half_sent.wait()
        with within(WAIT_SECONDS):
            while not s.staged():
                await anyio.sleep(0.01)
        assert [name.endswith(".part") for name in s.staged()] == [True]
        shutil.rmtree(s.settings.data / "staging")
        go_on.set()
        refused(await sending, 503, "overloaded")
        assert (await s.completed(TINY))["status"] == "completed"


async def test_what_cannot_be_removed_keeps_nothing_else(start: Starter) -> None:
    """A staging folder that is a disk of its own has a folder lost+found."""
    async with start(jobs={"events_days": 1}) as s:
        (s.settings.data / "staging" / "lost+found").mkdir()
        await s.sql("INSERT INTO image_upload_events (event_type, created_at) VALUES ('old', ?)", OLD)
        await s.sql("INSERT INTO upload_rate_limits VALUES ('o', 'old', ?, 3)", OLD)
        await s.state.jobs.housekeeping.sweep()
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
        await s.state.jobs.housekeeping.sweep()
        assert await s.sql("SELECT count(*) FROM image_upload_events WHERE event_type = 'x'") == [(2,)]
        kept = await s.sql("SELECT event_type FROM image_upload_events WHERE job_id = ?", job["job_id"])
        assert {kind for (kind,) in kept} >= {"accepted", "completed"}
        assert await s.sql("SELECT user_id FROM upload_rate_limits ORDER BY 1") == [("alice",), ("current",)]


async def test_upload_that_is_still_coming_is_never_touched(start: Starter) -> None:
    data = make.jpeg(1600, 1200, quality=95) + bytes(2 * PART)
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
        with within(WAIT_SECONDS):
            while not s.staged():
                await anyio.sleep(0.01)
        before = s.staged()
        for _ in range(3):
            await s.state.jobs.housekeeping.sweep()
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
        s.state.jobs.queue.hold()
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
    slow = make.large_jpeg(2400, 1800)
    async with start(jobs={"max_waiting": 2}, rate_limit={"max_uploads": 100}) as s:
        answers = []
        for _ in range(12):
            accepted = await s.upload(slow)
            answers.append(accepted.status_code)
            if accepted.status_code == 202:
                job_id = accepted.json()["job_id"]
                with within(30):
                    while "thumbnail" not in (await s.job(job_id))["ready"]:
                        await anyio.sleep(0.01)
            else:
                break
        assert answers[-1] == 503


async def test_full_disk(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    async with start(storage={"reserve_mb": 100}) as s:
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, 1 << 40, (100 << 20) - 1))
            await s.state.telemetry.health.measure()
            answer = await s.upload(TINY)
            announced = int(answer.request.headers["Content-Length"])
            left = (100 << 20) - 1 - announced
            refused(answer, 507, "storage_full", limit_bytes=100 << 20, measured_bytes=left)
            report = await s.http.get("/api/v1/health")
            assert (report.status_code, report.json()["status"]) == (503, "unhealthy")
            assert report.json()["checks"]["disk"]["status"] == "unhealthy"
            assert s.staged() == []
            assert await s.sql("SELECT * FROM upload_rate_limits") == []
            patch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, 1 << 39, 101 << 20))
            await s.state.telemetry.health.measure()
            assert (await s.http.get("/api/v1/health")).status_code == 200
            assert (await s.ended(await s.upload(TINY)))["status"] == "completed"


async def test_row_of_a_deletion_goes_once_its_files_are_gone_and_its_time_is_over(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "DELETED_PAGE", 2)
    old = as_text(now() - timedelta(days=400))
    async with start() as s:
        gone, named, fresh, kept = [(await s.completed(make.tiny(seed=n)))["image_id"] for n in range(4)]
        for image_id in (gone, named, fresh):
            assert (await s.http.delete(f"/api/v1/images/{image_id}", headers=s.bearer())).status_code == 200
        await s.sql("UPDATE processing_jobs SET deleted_at = ? WHERE image_id IN (?, ?)", old, gone, named)
        await s.sql("UPDATE processing_jobs SET also_in = 'elsewhere' WHERE image_id = ?", named)
        for _ in range(3):
            await s.state.jobs.housekeeping._drop_deleted()
        left = {row[0] for row in await s.sql("SELECT image_id FROM processing_jobs")}
        assert left == {named, fresh, kept}
    async with start(jobs={"deleted_rows_days": 0}) as s:
        await s.sql("UPDATE processing_jobs SET deleted_at = ? WHERE image_id = ?", old, fresh)
        await s.state.jobs.housekeeping.sweep()
        assert {row[0] for row in await s.sql("SELECT image_id FROM processing_jobs")} == left
