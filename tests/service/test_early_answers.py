"""A start does not wait for the workers: requests are answered at once, jobs and the health report a moment later."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import pytest

from imgsvc import create_app, testing
from imgsvc.access.tokens import Tokens
from imgsvc.service import runner
from imgsvc.service.assembly import Doubles
from imgsvc.testing import InlineLane
from tests.conftest import WAIT_SECONDS, Service


class SlowLane(InlineLane):
    """Its worker is there once the test says so."""

    def __init__(self, name: str, ready: anyio.Event) -> None:
        super().__init__(name)
        self.alive = False
        self._ready = ready

    async def start(self) -> None:
        await self._ready.wait()
        self.alive = True


@asynccontextmanager
async def started(folder: Path, ready: anyio.Event) -> AsyncIterator[Service]:
    settings = testing.settings_in(folder)
    app = create_app(settings, Doubles(lanes=[SlowLane("preview", ready), SlowLane("render", ready)]))
    async with app.router.lifespan_context(app):
        async with testing.Client(httpx.ASGITransport(app=app), Tokens.of(settings)) as http:
            yield Service(app, settings, http)
        ready.set()


async def test_requests_are_answered_before_the_workers_are_there(tmp_path: Path) -> None:
    ready = anyio.Event()
    async with started(tmp_path, ready) as s:
        assert (await s.http.get("/api/v1/health/live")).status_code == 200
        receipt = await s.upload(testing.picture())
        assert receipt.status_code == 202
        reports: list[httpx.Response] = []

        async def ask() -> None:
            reports.append(await s.http.get("/api/v1/health"))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            assert (await s.job(receipt.json()["job_id"]))["status"] == "pending"
            assert not reports
            ready.set()
        assert reports[0].status_code == 200
        assert reports[0].json()["checks"]["workers"]["detail"] == "2 of 2 alive"
        assert (await s.ended(receipt))["status"] == "completed"


async def test_requests_are_answered_before_the_first_sweep(tmp_path: Path) -> None:
    ready = anyio.Event()
    staging = testing.settings_in(tmp_path).data / "staging"
    staging.mkdir(parents=True, mode=0o700)
    broken_off = staging / f"{uuid.uuid4()}.part"
    broken_off.write_bytes(b"an upload that was cut off")
    async with started(tmp_path, ready) as s:
        for _ in range(100):  # in whose time a sweep would have ended
            assert (await s.http.get(f"/api/v1/images/jobs/{uuid.uuid4()}")).status_code == 404
        assert broken_off.exists()
        ready.set()
        with anyio.fail_after(WAIT_SECONDS):
            while broken_off.exists():
                await anyio.sleep(0.01)


async def test_workers_that_do_not_start_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "WARM_SECONDS", 0.05)
    async with started(tmp_path, anyio.Event()) as s:
        with anyio.fail_after(WAIT_SECONDS):
            report = await s.http.get("/api/v1/health")
        assert report.status_code == 503
        assert report.json()["checks"]["workers"]["detail"] == "0 of 2 alive"


async def test_stop_while_workers_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "WARM_SECONDS", 0.05)
    with anyio.fail_after(WAIT_SECONDS):
        async with started(tmp_path, anyio.Event()) as s:
            assert (await s.http.get("/api/v1/health/live")).status_code == 200
