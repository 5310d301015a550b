"""The wall clock set back while the service runs: what waits for its next attempt waits its delay, and no longer."""

from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from fixtures import make
from imgsvc import testing
from imgsvc.jobs import retry_timer
from imgsvc.jobs.table import model, transactions
from imgsvc.storage.base import StorageError
from imgsvc.storage.memory import MemoryStorage
from tests.conftest import WAIT_SECONDS, Service
from tests.support.speed import within


class Failing(MemoryStorage):
    """Takes nothing while it is broken."""

    broken = True

    async def put(self, bucket: str, key: str, source: Path) -> None:
        if self.broken and bucket != ".health":
            raise StorageError("broken")
        await super().put(bucket, key, source)


async def test_retry_is_not_postponed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, storage = testing.settings_in(tmp_path, jobs={"retry_delay_seconds": 0.5}), Failing()
    async with testing.serving(settings, storage=storage) as (app, http):
        s = Service(app, settings, http)
        accepted = await s.upload(make.tiny())
        with within(WAIT_SECONDS):
            while (await s.job(accepted.json()["job_id"]))["status"] != "retrying":
                await anyio.sleep(0.01)
        for module in (transactions, retry_timer):
            monkeypatch.setattr(module, "now", lambda: model.now() - timedelta(hours=1))
        storage.broken = False
        assert (await s.ended(accepted))["status"] == "completed"
