"""Jobs that nothing works on are found and put right, storages that hang do not keep a job, and health says so."""

import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from imgsvc import testing
from imgsvc.jobs import publish, watchdog
from imgsvc.jobs.retry import MAX_STARTS
from imgsvc.storage.memory import MemoryStorage
from imgsvc.telemetry import publishing_check
from tests.conftest import Service, service
from tests.support.speed import within

QUICK = {"retry_delay_seconds": 0.05}


def stuck(s: Service, fault: str) -> float:
    found = s.state.telemetry.metrics.workers._stuck.labels(fault)
    return float(found._value.get())


async def row(s: Service, job_id: str) -> tuple[Any, ...]:
    found = await s.sql("SELECT status, queue, run FROM processing_jobs WHERE job_id = ?", job_id)
    return tuple(found[0])


async def lost(s: Service, starts: int = 1) -> Any:
    """An upload whose row says `processing`, while no run has it, and no claim is on its way."""
    s.state.jobs.queue.hold()
    accepted = await s.upload(testing.picture())
    await s.sql("UPDATE processing_jobs SET status = 'processing', queue = NULL, run = 1, starts = ?", starts)
    s.state.jobs.queue._stopping = False
    return accepted


async def test_job_without_a_run_is_handed_out_again(tmp_path: Path) -> None:
    async with service(tmp_path) as s:
        accepted = await lost(s)
        await s.state.jobs.watchdog.look()
        assert await row(s, accepted.json()["job_id"]) == ("processing", None, 1)
        await s.state.jobs.watchdog.look()
        job = await s.ended(accepted)
        assert (job["status"], job["attempts"], stuck(s, "no_run")) == ("completed", 0, 1)


async def test_job_that_moved_on_between_two_looks_is_left_alone(tmp_path: Path) -> None:
    async with service(tmp_path) as s:
        accepted = await lost(s)
        await s.state.jobs.watchdog.look()
        await s.sql("UPDATE processing_jobs SET run = 2")
        await s.state.jobs.watchdog.look()
        assert await row(s, accepted.json()["job_id"]) == ("processing", None, 2)
        assert stuck(s, "no_run") == 0


async def test_job_that_was_started_too_often_is_given_up(tmp_path: Path) -> None:
    async with service(tmp_path) as s:
        accepted = await lost(s, starts=MAX_STARTS)
        for _ in range(2):
            await s.state.jobs.watchdog.look()
        job = await s.ended(accepted)
        assert (job["error_code"], job["retryable"]) == ("interrupted", True)


async def test_all_pages_of_what_is_under_way_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "PAGE", 2)
    monkeypatch.setattr(watchdog, "PAGES", 2)
    async with service(tmp_path) as s:
        s.state.jobs.queue.hold()
        accepted = [await s.upload(testing.picture()) for _ in range(5)]
        await s.sql("UPDATE processing_jobs SET status = 'processing', queue = NULL, run = 1")
        s.state.jobs.queue._stopping = False
        for _ in range(5):
            await s.state.jobs.watchdog.look()
        assert [(await s.ended(one))["status"] for one in accepted] == ["completed"] * 5


async def test_waiting_job_that_no_idle_lane_claims_is_woken(tmp_path: Path) -> None:
    async with service(tmp_path) as s:
        s.state.jobs.queue.hold()
        accepted = await s.upload(testing.picture())
        await anyio.wait_all_tasks_blocked()  # the claim loops have seen it, and that nothing is to be claimed
        s.state.jobs.queue._stopping = False  # and nothing wakes them
        for _ in range(watchdog.LOOKS - 1):
            await s.state.jobs.watchdog.look()
        assert (await s.job(accepted.json()["job_id"]))["status"] == "pending"
        await s.state.jobs.watchdog.look()
        assert (await s.ended(accepted))["status"] == "completed"
        assert stuck(s, "not_claimed") == 1


class Hanging(MemoryStorage):
    """Lets the first puts of a large variant wait for ever, as many as `hangs`."""

    def __init__(self, hangs: int, wait: Callable[[], Awaitable[object]] = anyio.sleep_forever) -> None:
        super().__init__()
        self.hangs, self.wait = hangs, wait
        self.hanging = 0

    async def put(self, bucket: str, key: str, source: Path) -> None:
        if "large" in key and self.hangs:
            self.hangs -= 1
            self.hanging += 1
            await self.wait()
        await super().put(bucket, key, source)


async def test_put_that_hangs_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "PUT_SECONDS", 0.2)
    settings = testing.settings_in(tmp_path, jobs=QUICK)
    async with testing.serving(settings, storage=Hanging(1)) as (_, client):
        job = await client.ready((await client.upload(testing.picture())).json()["job_id"])
        assert job["attempts"] == 1


async def test_thread_that_hangs_keeps_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "PUT_SECONDS", 0.2)
    go_on = threading.Event()
    storage = Hanging(1, lambda: anyio.to_thread.run_sync(go_on.wait))
    async with testing.serving(testing.settings_in(tmp_path, jobs=QUICK), storage=storage) as (_, client):
        try:
            job = await client.ready((await client.upload(testing.picture())).json()["job_id"])
            assert job["attempts"] == 1
        finally:
            go_on.set()
        with within(10):
            while publish._LATE:
                await anyio.sleep(0.01)


async def test_stuck_publishing_is_seen_by_health_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Hanging(8)
    settings = testing.settings_in(tmp_path, jobs=QUICK)
    async with testing.serving(settings, storage=storage) as (app, client):
        state = app.state.service
        accepted = [(await client.upload(testing.picture(seed, 30))).json()["job_id"] for seed in range(40, 48)]
        with within(20):
            while storage.hanging < 8:
                await anyio.sleep(0.01)
        await state.telemetry.health.measure()
        assert state.telemetry.health.checks()["publishing"].status == "healthy"
        monkeypatch.setattr(publishing_check, "SLOW_SECONDS", 0)
        await state.telemetry.health.measure()
        assert (await client.get("/api/v1/health")).status_code == 503
        assert "8 being stored" in state.telemetry.health.checks()["publishing"].detail
        await state.jobs.watchdog.look()
        monkeypatch.setattr(watchdog, "PUBLISHING_SECONDS", 0)
        await state.jobs.watchdog.look()
        assert [(await client.ready(job_id))["attempts"] for job_id in accepted] == [1] * 8
        assert state.telemetry.metrics.workers._stuck.labels("publishing")._value.get() == 8
