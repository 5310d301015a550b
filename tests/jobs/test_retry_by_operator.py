"""A failed job starts over: with its source, all its attempts and a new turn, and never half."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest

from fixtures import make
from imgsvc import testing
from imgsvc.jobs.table.model import as_text, now
from imgsvc.storage.base import StorageError
from imgsvc.storage.memory import MemoryStorage
from tests.conftest import WAIT_SECONDS, Service, service
from tests.http.test_every_error import whole
from tests.support.speed import within

TINY = make.tiny()
ONE_ATTEMPT: dict[str, dict[str, Any]] = {"jobs": {"max_attempts": 1}}


async def retry(s: Service, job_id: str) -> httpx.Response:
    return await s.http.post(f"/api/v1/operator/jobs/{job_id}/retry", headers=s.operator)


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, whole(answer)) == (status, code), answer.text


@asynccontextmanager
async def blocked_storage(folder: Path, **sections: dict[str, Any]) -> AsyncIterator[tuple[Service, Path]]:
    """A service whose bucket `photos` can't be written while the file that is given stands there."""
    async with service(folder, **{**ONE_ATTEMPT, **sections}) as s:
        obstacle = s.settings.storage.path / "photos"
        obstacle.write_bytes(b"")
        yield s, obstacle


async def failed(s: Service) -> dict[str, Any]:
    job = await s.ended(await s.upload(TINY))
    assert (job["status"], job["error_code"], job["retryable"]) == ("failed", "storage_error", True)
    return job


async def test_retried_job_is_completed(tmp_path: Path) -> None:
    async with blocked_storage(tmp_path) as (s, obstacle):
        job = await failed(s)
        assert s.state.jobs.counters.by_status()["failed"] == 1
        obstacle.unlink()
        answer = await retry(s, job["job_id"])
        assert answer.status_code == 202
        body = answer.json()
        assert (body["status"], body["attempts"], body["error"], body["started_at"]) == ("pending", 0, None, None)
        again = await _ended(s, job["job_id"])
        assert (again["status"], again["error"], again["error_code"]) == ("completed", None, None)
        assert again["created_at"] == job["created_at"]
        assert len(await s.variant(job["image_id"], "large")) > 100
        with within(WAIT_SECONDS):
            while s.staged():
                await anyio.sleep(0.01)
        kinds = [kind for (kind,) in await s.sql("SELECT event_type FROM image_upload_events ORDER BY id")]
        assert kinds.index("failed") < kinds.index("retried") < kinds.index("completed")
        statuses = s.state.jobs.counters.by_status()
        assert (statuses["failed"], statuses["completed"], statuses["pending"]) == (0, 1, 0)
        refused(await retry(s, job["job_id"]), 409, "not_retryable")


async def test_retried_job_may_fail_again_and_be_retried_again(tmp_path: Path) -> None:
    async with blocked_storage(tmp_path) as (s, obstacle):
        job = await failed(s)
        for _ in range(2):
            assert (await retry(s, job["job_id"])).status_code == 202
            again = await _ended(s, job["job_id"])
            assert (again["status"], again["attempts"]) == ("failed", 1)
            assert len(s.staged()) == 1
        obstacle.unlink()
        assert (await retry(s, job["job_id"])).status_code == 202
        assert (await _ended(s, job["job_id"]))["status"] == "completed"


async def test_retried_job_has_all_its_attempts_again(tmp_path: Path) -> None:
    async with blocked_storage(tmp_path, jobs={"max_attempts": 2, "retry_delay_seconds": 0.05}) as (s, obstacle):
        job = await failed(s)
        assert job["attempts"] == 2
        assert (await retry(s, job["job_id"])).status_code == 202
        with within(WAIT_SECONDS):
            while (await s.job(job["job_id"]))["status"] != "retrying":
                await anyio.lowlevel.checkpoint()
        obstacle.unlink()
        assert (await _ended(s, job["job_id"]))["status"] == "completed"


async def test_retry_survives_a_restart(tmp_path: Path) -> None:
    async with blocked_storage(tmp_path) as (s, obstacle):
        job = await failed(s)
        obstacle.unlink()
        s.state.jobs.queue.hold()
        assert (await retry(s, job["job_id"])).status_code == 202
        assert (await s.job(job["job_id"]))["status"] == "pending"
    async with service(tmp_path) as s:
        assert (await _ended(s, job["job_id"]))["status"] == "completed"


async def test_many_retries_at_once_begin_it_once(tmp_path: Path) -> None:
    async with blocked_storage(tmp_path) as (s, obstacle):
        job = await failed(s)
        obstacle.unlink()
        answers = await asyncio.gather(*(retry(s, job["job_id"]) for _ in range(20)))
        assert sorted(answer.status_code for answer in answers) == [202] + [409] * 19
        assert (await _ended(s, job["job_id"]))["status"] == "completed"
        assert await s.sql("SELECT count(*) FROM image_upload_events WHERE event_type = 'retried'") == [(1,)]


async def test_what_can_not_be_retried(tmp_path: Path) -> None:
    async with blocked_storage(tmp_path) as (s, obstacle):
        unreadable = await s.ended(await s.upload(make.jpeg(640, 480)[:9000]))
        assert unreadable["status"] == "failed" and not unreadable["retryable"]
        refused(await retry(s, unreadable["job_id"]), 409, "not_retryable")
        lost = await failed(s)
        (s.settings.data / "staging" / lost["job_id"]).unlink()
        refused(await retry(s, lost["job_id"]), 409, "not_retryable")
        deleted = await failed(s)
        await s.http.delete(f"/api/v1/images/{deleted['image_id']}", headers=s.bearer())
        refused(await retry(s, deleted["job_id"]), 404, "job_not_found")
        obstacle.unlink()
        s.state.jobs.queue.hold()
        waiting = (await s.upload(TINY)).json()
        refused(await retry(s, waiting["job_id"]), 409, "not_retryable")


async def test_expired_source_can_not_be_retried(tmp_path: Path) -> None:
    async with blocked_storage(tmp_path) as (s, obstacle):
        job = await failed(s)
        await s.sql("UPDATE processing_jobs SET failed_at = ?", as_text(now() - timedelta(days=2)))
        obstacle.unlink()
        await s.state.jobs.housekeeping.sweep()
        refused(await retry(s, job["job_id"]), 409, "not_retryable")


def held(s: Service, monkeypatch: pytest.MonkeyPatch, name: str) -> tuple[anyio.Event, anyio.Event]:
    """A read of the table that is made at once and answered only when the second event is set."""
    looked, go_on = anyio.Event(), anyio.Event()
    real = getattr(s.state.jobs.table.files, name)

    async def slow(*values: Any) -> Any:
        found = await real(*values)
        looked.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(s.state.jobs.table.files, name, slow)
    return looked, go_on


async def test_removal_decided_before_the_retry_takes_none_of_its_variants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with blocked_storage(tmp_path) as (s, obstacle):
        job = await failed(s)
        key = f"processed/large/{job['image_id']}_large.webp"
        await s.sql("UPDATE processing_jobs SET processed_paths = ?", json.dumps({"large": key}))
        obstacle.unlink()
        looked, go_on = held(s, monkeypatch, "leftovers")
        async with anyio.create_task_group() as group:
            group.start_soon(s.state.jobs.housekeeping._finish_removals)
            await looked.wait()
            assert (await retry(s, job["job_id"])).status_code == 202
            assert (await _ended(s, job["job_id"]))["status"] == "completed"
            go_on.set()
        for size in ("thumbnail", "medium", "large", "original"):
            assert len(await s.variant(job["image_id"], size)) > 50


async def test_expiry_decided_before_the_retry_takes_not_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with blocked_storage(tmp_path) as (s, obstacle):
        job = await failed(s)
        await s.sql("UPDATE processing_jobs SET failed_at = ?", as_text(now() - timedelta(days=2)))
        obstacle.unlink()
        s.state.jobs.queue.hold()
        looked, go_on = held(s, monkeypatch, "expired_sources")
        async with anyio.create_task_group() as group:
            group.start_soon(s.state.jobs.housekeeping._expire_sources)
            await looked.wait()
            assert (await retry(s, job["job_id"])).status_code == 202
            monkeypatch.undo()
            go_on.set()
        assert s.staged() == [job["job_id"]]


async def test_retry_waits_until_the_failed_run_has_tidied_up(tmp_path: Path) -> None:
    """Its run is still removing what it put when the operator asks: the new run's files must stay."""
    storage = SlowToRemove()

    settings = testing.settings_in(tmp_path, **ONE_ATTEMPT)
    async with testing.serving(settings, storage=storage) as (app, http):
        s = Service(app, settings, http)
        accepted = await s.upload(TINY)
        with within(WAIT_SECONDS):
            await storage.removing.wait()
        storage.broken = False
        async with anyio.create_task_group() as group:

            async def retried() -> None:
                assert (await retry(s, accepted.json()["job_id"])).status_code == 202

            group.start_soon(retried)
            await anyio.wait_all_tasks_blocked()
            assert (await s.job(accepted.json()["job_id"]))["status"] == "failed"
            storage.go_on.set()
        assert (await _ended(s, accepted.json()["job_id"]))["status"] == "completed"
        assert len(await s.variant(accepted.json()["image_id"], "large")) > 50


class SlowToRemove(MemoryStorage):
    """Takes nothing while it is broken, and is slow in removing."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = True
        self.removing, self.go_on = anyio.Event(), anyio.Event()  # the first removal waits, the others do not

    async def put(self, bucket: str, key: str, source: Path) -> None:
        if self.broken and bucket != ".health":
            raise StorageError("broken")
        await super().put(bucket, key, source)

    async def remove(self, bucket: str, key: str) -> bool:
        if bucket != ".health" and not self.removing.is_set():
            self.removing.set()
            await self.go_on.wait()
        return await super().remove(bucket, key)


async def _ended(s: Service, job_id: str) -> dict[str, Any]:
    with within(WAIT_SECONDS):
        while (job := await s.job(job_id))["status"] not in ("completed", "failed"):
            await anyio.sleep(0.02)
    return job
