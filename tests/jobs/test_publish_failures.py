"""What goes wrong around the record of a run must not undo it."""

import errno
import threading
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from fixtures import make
from imgsvc import testing
from imgsvc.jobs import deletion
from imgsvc.jobs.settlement import Settlement
from imgsvc.storage import placing
from imgsvc.storage.base import Blob, StorageError
from imgsvc.storage.local import LocalStorage
from imgsvc.storage.memory import MemoryStorage
from imgsvc.telemetry import health
from tests.conftest import ENDED, Starter, service
from tests.support.maintenance import keeping
from tests.support.speed import within

REFUSE_SOURCE_REMOVED = """
CREATE TRIGGER refuse BEFORE UPDATE OF staging_path ON processing_jobs BEGIN INSERT INTO nowhere VALUES (1); END
"""


async def test_completed_image_stays_when_its_source_can_not_be_noted_as_gone(tmp_path: Path) -> None:
    async with service(tmp_path) as s:
        await s.sql(REFUSE_SOURCE_REMOVED)
        job = await s.completed(make.jpeg(160, 120))
        with within(10):
            while s.state.jobs.queue.active_runs:
                await anyio.sleep(0.01)
        assert len(await s.variant(job["image_id"], "large")) > 100
        assert len(s.stored()) == 4
        await s.sql("DROP TRIGGER refuse")
    async with service(tmp_path) as s:
        await s.state.jobs.housekeeping.sweep()
        assert s.staged() == []
        assert len(await s.variant(job["image_id"], "large")) > 100


async def test_upload_that_could_not_be_removed_is_named_by_no_row_and_removed_later(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit that completes the job forgets the upload, so whatever ends the service after it leaves the file."""

    def refuse(_: Settlement) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with start() as s:
        monkeypatch.setattr(Settlement, "_remove_staged", refuse)
        await s.completed(make.jpeg(64, 48))
        assert await s.sql("SELECT staging_path FROM processing_jobs") == [(None,)]
        with within(10):
            while s.state.jobs.queue.active_runs:
                await anyio.sleep(0.01)
        assert len(s.staged()) == 1
        await s.state.jobs.housekeeping.sweep()
        assert s.staged() == []


async def test_retry_after_a_storage_error_is_released_in_time(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with start(jobs={"retry_delay_seconds": 0.3}) as s:
        monkeypatch.setattr(placing, "_write", refuse)
        accepted = await s.upload(make.jpeg(160, 120))
        with within(10):
            while (job := await s.job(accepted.json()["job_id"]))["status"] not in ("retrying", *ENDED):
                await anyio.sleep(0.01)
        assert (job["status"], job["error_code"]) == ("retrying", "storage_error")
        monkeypatch.undo()
        assert (await s.ended(accepted))["status"] == "completed"


class Stalled(LocalStorage):
    """A disk that does not answer: a thread hangs in a read until `answers` is set."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.answers = threading.Event()

    async def read(self, bucket: str, key: str, start: int, length: int) -> Blob:
        await anyio.to_thread.run_sync(self.answers.wait, abandon_on_cancel=True)
        return await super().read(bucket, key, start, length)


async def test_check_that_hangs_is_unhealthy_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("EVERY_SECONDS", "LIMIT_SECONDS", "SLACK_SECONDS"):
        monkeypatch.setattr(health, name, 0.2)
    storage = Stalled(tmp_path / "data" / "storage")
    async with keeping(tmp_path, storage=storage) as s:
        try:
            with within(10):
                while (answer := await s.http.get("/api/v1/health")).status_code != 503:
                    await anyio.sleep(0.05)
            checks = answer.json()["checks"]
            assert checks["storage"]["status"] == "unhealthy"
            assert checks["database"]["status"] == "healthy"
            assert checks["database"]["age_seconds"] < 1
        finally:
            storage.answers.set()


def many_scans(copies: int) -> bytes:
    data = make.encoded(make.photo(200, 150), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * copies + b"\xff\xd9"


async def test_jpeg_of_endless_scans_is_refused(start: Starter) -> None:
    async with start() as s:
        refused = await s.upload(many_scans(500))
        assert (refused.status_code, refused.json()["code"]) == (422, "image_unreadable")
        assert "scans" in refused.json()["detail"]
        assert (await s.upload(many_scans(5))).status_code == 202


async def test_bytes_that_changed_on_disk_are_not_published(start: Starter) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        accepted = await s.upload(make.jpeg(160, 120))
        staged = s.settings.data / "staging" / accepted.json()["job_id"]
        staged.write_bytes(make.jpeg(160, 120, seed=9))
        s.state.jobs.queue._stopping = False
        s.state.jobs.queue.wake()
        job = await s.ended(accepted)
        assert (job["status"], job["error_code"], job["retryable"]) == ("failed", "source_damaged", False)


class SlowAndFull(MemoryStorage):
    """Holds every variant but the preview until `go` is set, then refuses one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.publishing, self.go = anyio.Event(), anyio.Event()

    async def put(self, bucket: str, key: str, source: Path) -> None:
        if "thumbnail" not in key and not key.startswith("probe"):
            self.publishing.set()
            await self.go.wait()
            if "medium" in key:
                raise StorageError("full")
        await super().put(bucket, key, source)


async def test_publish_that_fails_after_a_deletion_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "END_RUN_SECONDS", 0.1)
    storage = SlowAndFull()
    async with testing.serving(testing.settings_in(tmp_path), storage=storage) as (app, client):
        accepted = (await client.upload(testing.picture())).json()
        await storage.publishing.wait()
        assert (await client.delete(f"/api/v1/images/{accepted['image_id']}")).status_code == 200
        storage.go.set()
        with within(10):
            while app.state.service.jobs.queue.active_runs:
                await anyio.sleep(0.01)
        assert [key for _, key in storage._stored if accepted["image_id"] in key] == []
