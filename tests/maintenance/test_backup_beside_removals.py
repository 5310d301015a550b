"""What is removed while a backup is made is in it, and goes once it is done."""

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from fixtures import make
from imgsvc.jobs import housekeeping
from imgsvc.storage.local import LocalStorage
from tests.conftest import WAIT_SECONDS
from tests.support.backups import Waiting, backed_up, put_back, several
from tests.support.maintenance import SIZES, begin, carried_out, ended, keeping, key, variants
from tests.support.speed import within

TINY = make.tiny()


async def emptied(names: Callable[[], list[str]]) -> None:
    """Wait for the sweep after a backup, which is done before it."""
    with within(WAIT_SECONDS):
        while names():
            await anyio.sleep(0.01)


async def test_what_is_removed_meanwhile_is_in_it_and_goes_after_it(tmp_path: Path) -> None:
    storage = Waiting(tmp_path / "one" / "data" / "storage")
    async with keeping(tmp_path / "one", storage=storage) as s:
        images = await several(s, 2)
        one, other = images
        s.state.jobs.queue.hold()
        waiting = await s.upload(TINY)
        broken = await s.upload(make.jpeg(1000, 800)[:80_000])
        await begin(s, "backup", destination=str(tmp_path / "backup"))
        await storage.asked.wait()

        gone = await s.http.delete(f"/api/v1/images/{one}", headers=s.bearer())
        assert gone.json() == {"image_id": one, "deleted": True, "files_removed": 4}
        assert (await s.http.get(f"/api/v1/images/{one}")).status_code == 404
        s.state.jobs.queue._stopping = False
        s.state.jobs.queue.wake()
        assert (await s.ended(waiting))["status"] == "completed"
        assert (await s.ended(broken))["status"] == "failed"
        await s.state.jobs.housekeeping.sweep()
        assert {key(one, size, "a/b") for size in SIZES} <= set(s.stored())
        assert len(s.staged()) == 2

        storage.go.set()
        assert (await ended(s))["well"] is True
        await emptied(s.staged)
        await emptied(lambda: [name for name in s.stored() if one in name])
        assert (await carried_out(s, "verify", grace_seconds=0))["well"] is True
        storage.go.set()

    await put_back(tmp_path / "backup", tmp_path / "two")
    async with keeping(tmp_path / "two") as s:
        assert await variants(s, one) == images[one]
        assert (await s.ended(waiting))["status"] == "completed"
        assert (await s.ended(broken))["status"] == "failed"
        assert other in images


class Silent(Waiting):
    async def size(self, bucket: str, key: str) -> int | None:
        await anyio.sleep_forever()
        raise AssertionError


async def test_deletion_during_a_backup_does_not_wait_for_a_store_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "WITHDRAW_SECONDS", 0.2)
    storage = Silent(tmp_path / "data" / "storage")
    async with keeping(tmp_path, storage=storage) as s:
        (image_id,) = await several(s, 1)
        await begin(s, "backup", destination=str(tmp_path / "backup"))
        await storage.asked.wait()
        with within(WAIT_SECONDS):
            gone = await s.http.delete(f"/api/v1/images/{image_id}", headers=s.bearer())
        assert gone.json()["deleted"] is True
        storage.go.set()
        assert (await ended(s))["well"] is True
        await emptied(s.stored)


async def test_failed_job_waits_for_the_backup_before_it_begins_anew(tmp_path: Path) -> None:
    async with keeping(tmp_path, jobs={"max_attempts": 1}) as s:
        blocked = s.settings.storage.path / "photos"
        blocked.parent.mkdir(exist_ok=True)
        blocked.write_bytes(b"")
        job = await s.ended(await s.upload(TINY))
        with within(WAIT_SECONDS):  # until the run has removed what it had put
            while await s.sql("SELECT processed_paths FROM processing_jobs") != [("{}",)]:
                await anyio.sleep(0.01)
        await s.sql('UPDATE processing_jobs SET processed_paths = \'{"large": "x"}\'')
        blocked.unlink()
        address = f"/api/v1/operator/jobs/{job['job_id']}/retry"
        with s.state.jobs.housekeeping._hold.held():
            refused = await s.http.post(address, headers=s.operator)
            assert refused.status_code == 409 and "backup" in refused.json()["detail"]
        assert (await s.http.post(address, headers=s.operator)).status_code == 202


class Stuck(LocalStorage):
    """Removes nothing, and never answers."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked = 0

    async def remove(self, bucket: str, key: str) -> bool:
        if not bucket.startswith(".health"):
            self.asked += key.startswith("processed/large/")
            await anyio.sleep_forever()
        return False


async def test_storage_that_hangs_is_left_alone_after_three_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgsvc.jobs.publish.WITHDRAW_SECONDS", 0.05)
    storage = Stuck(tmp_path / "data" / "storage")
    async with keeping(tmp_path, storage=storage) as s:
        images = await several(s, 8)
        with s.state.jobs.housekeeping._hold.held():
            for image_id in images:
                await s.http.delete(f"/api/v1/images/{image_id}", headers=s.bearer())
        await s.state.jobs.housekeeping.sweep()
        assert storage.asked == 3


async def test_backup_is_done_before_what_was_held_back_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage hangs: the next task need not wait for it."""
    monkeypatch.setattr("imgsvc.jobs.publish.WITHDRAW_SECONDS", WAIT_SECONDS * 2)
    storage = Stuck(tmp_path / "data" / "storage")
    async with keeping(tmp_path, storage=storage) as s:
        first, _ = await several(s, 2)
        with s.state.jobs.housekeeping._hold.held():
            await s.http.delete(f"/api/v1/images/{first}", headers=s.bearer())
        assert (await backed_up(s, tmp_path / "backup"))["well"] is True
        with within(WAIT_SECONDS):
            while not storage.asked:
                await anyio.sleep(0.01)
        assert (await carried_out(s, "verify"))["state"] == "done"
