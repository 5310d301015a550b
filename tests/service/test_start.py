"""A start: what requests wait for, and what they don't."""

from pathlib import Path

import anyio
import httpx

from imgsvc.service.app import create_app
from imgsvc.service.assembly import Doubles
from imgsvc.storage.base import Blob
from imgsvc.storage.memory import MemoryStorage
from imgsvc.testing import InlineLane, settings_in
from tests.support.speed import within


class Slow(MemoryStorage):
    """A storage that answers reads only once it may."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.may_answer = anyio.Event(), anyio.Event()

    async def read(self, bucket: str, key: str, start: int, length: int) -> Blob:
        self.asked.set()
        await self.may_answer.wait()
        return await super().read(bucket, key, start, length)


async def test_requests_do_not_wait_for_a_slow_storage_and_the_health_report_does(tmp_path: Path) -> None:
    storage, answered = Slow(), anyio.Event()
    app = create_app(settings_in(tmp_path), Doubles((InlineLane("preview"), InlineLane("render")), storage))
    with within(30):
        async with app.router.lifespan_context(app):
            disk = app.state.service.telemetry.disk
            assert disk.free_bytes > 0  # uploads are admitted by it
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:

                async def report() -> None:
                    found = (await client.get("/api/v1/health")).json()
                    assert found["checks"]["storage"]["status"] == "healthy"
                    assert set(found["checks"]) >= {"database", "disk", "queue", "workers"}
                    answered.set()

                async with anyio.create_task_group() as group:
                    group.start_soon(report)
                    await storage.asked.wait()
                    assert (await client.get("/api/v1/health/live")).status_code == 200
                    assert not answered.is_set()
                    storage.may_answer.set()
