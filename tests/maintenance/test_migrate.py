"""Moving images between backends: nothing lost, nothing left behind, and readers meanwhile get the right bytes."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from fixtures import make
from imgsvc.maintenance import migrate
from imgsvc.storage.base import Blob, StorageError
from imgsvc.storage.local import LocalStorage
from tests.conftest import WAIT_SECONDS, Service
from tests.support.maintenance import SIZES, begin, carried_out, ended, files, found, keeping, key, task, variants
from tests.support.other_storage import Other
from tests.support.speed import within

TINY = make.tiny()


async def several(s: Service, many: int) -> dict[str, dict[str, bytes]]:
    ids = [(await s.completed(make.tiny(number), bucket="a/b"))["image_id"] for number in range(many)]
    return {image_id: await variants(s, image_id) for image_id in ids}


async def backends(s: Service) -> set[str]:
    return {backend for (backend,) in await s.sql("SELECT DISTINCT storage_backend FROM processing_jobs")}


async def test_there_and_back(tmp_path: Path) -> None:
    async with keeping(tmp_path) as s:
        images = await several(s, 5)
        everything = set(s.stored())
        for to, here, there in (("other", "data/storage", "other"), ("local", "other", "data/storage")):
            planned = await carried_out(s, "migrate", to=to, dry_run=True)
            assert files(tmp_path / here) == everything and files(tmp_path / there) == set()
            report = await carried_out(s, "migrate", to=to)
            assert (report["state"], report["well"], report["findings"]) == ("done", True, [])
            size = sum(len(data) for image in images.values() for data in image.values())
            assert report["counts"] == planned["counts"] == {"images": 5, "files": 20, "bytes": size}
            assert files(tmp_path / here) == set() and files(tmp_path / there) == everything
            assert await backends(s) == {to}
            for image_id, before in images.items():
                assert await variants(s, image_id) == before
            assert (await carried_out(s, "verify", digests=True, grace_seconds=0))["well"] is True
            assert (await carried_out(s, "migrate", to=to))["counts"] == {}
        events = await s.sql("SELECT metadata ->> 'after' FROM image_upload_events WHERE event_type = 'moved'")
        assert sorted(events) == [("local",)] * 5 + [("other",)] * 5
        assert [path.name for path in (s.settings.data / "scratch").glob("upkeep-*")] == []


async def test_what_is_damaged_stays_where_it_is(tmp_path: Path) -> None:
    async with keeping(tmp_path) as s:
        images = list(await several(s, 3))
        changed, lost, well = (key(image_id, "large", "a/b") for image_id in images)
        root = s.settings.storage.path
        (root / changed).write_bytes(b"not what it was")
        (root / lost).unlink()
        before = {name for name in s.stored() if images[2] not in name}
        report = await carried_out(s, "migrate", to="other")
        assert (report["state"], report["well"]) == ("done", False)
        assert found(report) == {("wrong_digest", "local", changed), ("missing", "local", lost)}
        assert report["counts"]["images"] == 1
        assert set(s.stored()) == before
        assert files(tmp_path / "other") == {key(images[2], size, "a/b") for size in SIZES}
        assert well in files(tmp_path / "other")


async def test_jobs_that_run_are_left_alone(tmp_path: Path) -> None:
    async with keeping(tmp_path) as s:
        await several(s, 1)
        s.state.jobs.queue.hold()
        accepted = await s.upload(TINY)
        report = await carried_out(s, "migrate", to="other")
        assert (report["well"], report["counts"]["unfinished"], report["counts"]["images"]) == (False, 1, 1)
        s.state.jobs.queue._stopping = False
        s.state.jobs.queue.wake()
        image_id = (await s.ended(accepted))["image_id"]
        before = await variants(s, image_id)
        assert (await carried_out(s, "migrate", to="other"))["well"] is True
        assert await variants(s, image_id) == before
        assert s.stored() == []


async def test_unknown_backend(tmp_path: Path) -> None:
    async with keeping(tmp_path) as s:
        report = await carried_out(s, "migrate", to="s4")
        assert report["state"] == "failed" and "s4 is not configured" in report["error"] and "other" in report["error"]


class Slow(Other):
    """Waits before each large variant is put, or refuses all, or keeps something else."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reached, self.go = anyio.Event(), anyio.Event()
        self.refuses = self.garbles = False

    async def put(self, bucket: str, key: str, source: Path) -> None:
        self.reached.set()
        if "large" in key:
            await self.go.wait()
        if self.refuses:
            raise StorageError("writing failed: No space left on device")
        if self.garbles:
            source.write_bytes(b"garbled")
        await super().put(bucket, key, source)


async def test_image_that_is_deleted_while_it_is_copied_is_gone_everywhere(tmp_path: Path) -> None:
    other = Slow(tmp_path / "other")
    async with keeping(tmp_path, others=[other]) as s:
        (image_id,) = await several(s, 1)
        await begin(s, "migrate", to="other")
        await other.reached.wait()
        gone = await s.http.delete(f"/api/v1/images/{image_id}", headers=s.bearer())
        assert gone.json()["files_removed"] == 4
        other.go.set()
        report = await ended(s)
        assert (report["well"], report["counts"]) == (True, {})
        assert s.stored() == [] and files(tmp_path / "other") == set()


async def test_storage_that_takes_nothing_ends_it(tmp_path: Path) -> None:
    other = Slow(tmp_path / "other")
    other.refuses = True
    other.go.set()
    async with keeping(tmp_path, others=[other]) as s:
        images = await several(s, 15)
        report = await carried_out(s, "migrate", to="other")
        assert report["state"] == "failed" and "No space left on device" in report["error"]
        assert report["counts"]["not_moved"] < 15
        other.refuses, other.garbles = False, True
        report = await carried_out(s, "migrate", to="other")
        assert report["state"] == "failed" and "read back" in report["error"]
        await carried_out(s, "gc", dry_run=False, older_than_seconds=0)  # of those that were amid their copies
        assert files(tmp_path / "other") == set()
        other.garbles = False
        assert (await carried_out(s, "migrate", to="other"))["well"] is True
        for image_id, before in images.items():
            assert await variants(s, image_id) == before


async def test_disk_s_reserve_is_not_used_up(tmp_path: Path) -> None:
    async with keeping(tmp_path) as s:
        ((image_id, before),) = (await several(s, 1)).items()
        assert (await carried_out(s, "migrate", to="other"))["well"] is True
    async with keeping(tmp_path, reserve_mb=1_000_000_000) as s:
        report = await carried_out(s, "migrate", to="local")
        assert report["state"] == "failed" and "kept in reserve" in report["error"]
        assert s.stored() == [] and await variants(s, image_id) == before
        backup = await carried_out(s, "backup", destination=str(tmp_path / "backup"), with_s3=True)
        assert backup["state"] == "failed" and "0 bytes free" in backup["error"]


class Stuck(LocalStorage):
    """Removing waits for ever, but for thumbnails."""

    async def remove(self, bucket: str, key: str) -> bool:
        if "large" in key:
            await anyio.sleep_forever()
        return await super().remove(bucket, key)


async def test_old_copies_that_could_not_be_removed_in_time_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LAST_STEP_SECONDS", 0.5)
    async with keeping(tmp_path, storage=Stuck(tmp_path / "data" / "storage")) as s:
        ((image_id, before),) = (await several(s, 1)).items()
        report = await carried_out(s, "migrate", to="other")
        assert (report["counts"]["images"], report["counts"]["old_copies_left"]) == (1, len(s.stored()))
        assert await variants(s, image_id) == before


async def test_database_that_does_not_answer_in_time_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "LAST_STEP_SECONDS", 0.5)
    slow = Slow(tmp_path / "other")
    async with keeping(tmp_path, others=[slow]) as s:
        ((image_id, before),) = (await several(s, 1)).items()
        other = sqlite3.connect(s.settings.database.path, isolation_level=None, check_same_thread=False)
        with closing(other):
            await begin(s, "migrate", to="other")
            await slow.reached.wait()
            await anyio.to_thread.run_sync(other.execute, "BEGIN IMMEDIATE")
            slow.go.set()
            report = await ended(s)
        assert (report["state"], report["well"]) == ("failed", None) and "does not answer" in report["error"]
        assert await variants(s, image_id) == before


async def test_cancelled_and_begun_again(tmp_path: Path) -> None:
    other = Slow(tmp_path / "other")
    async with keeping(tmp_path, others=[other]) as s:
        images = await several(s, 6)
        await begin(s, "migrate", to="other")
        await other.reached.wait()
        assert (await s.http.delete("/api/v1/operator/storage/task", headers=s.operator)).status_code == 202
        assert (await ended(s))["state"] == "cancelled"
        other.go.set()
        assert (await carried_out(s, "migrate", to="other"))["well"] is True
        await carried_out(s, "gc", dry_run=False, older_than_seconds=0)
        assert s.stored() == [] and len(files(tmp_path / "other")) == 24
        for image_id, before in images.items():
            assert await variants(s, image_id) == before


class Held(LocalStorage):
    """A reader that has looked at its row waits before it opens the file."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.holding = False
        self.asked, self.go = anyio.Event(), anyio.Event()

    async def read(self, bucket: str, key: str, start: int, length: int) -> Blob:
        if self.holding and not bucket.startswith(".health"):
            self.asked.set()
            await self.go.wait()
        return await super().read(bucket, key, start, length)


async def test_reader_that_comes_too_late_for_the_old_copy_gets_the_new_one(tmp_path: Path) -> None:
    storage = Held(tmp_path / "data" / "storage")
    async with keeping(tmp_path, storage=storage, server={"cache_mb": 0}) as s:
        images = await several(s, 1)
        ((image_id, before),) = images.items()
        storage.holding = True
        answers: list[bytes] = []

        async def read() -> None:
            answers.append(await s.variant(image_id, "large"))

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await storage.asked.wait()
            assert (await carried_out(s, "migrate", to="other"))["well"] is True
            assert s.stored() == []
            storage.go.set()
        assert answers == [before["large"]]
        path = f"/storage/{key(image_id, 'large', 'a/b')}"
        assert (await s.http.get(path)).content == before["large"]


async def test_image_that_really_is_lost_is_not_found(tmp_path: Path) -> None:
    async with keeping(tmp_path, server={"cache_mb": 0}) as s:
        (image_id,) = await several(s, 1)
        (s.settings.storage.path / key(image_id, "large", "a/b")).unlink()
        answer = await s.http.get(f"/api/v1/images/{image_id}/direct", params={"size": "large"})
        assert (answer.status_code, answer.json()["code"]) == (404, "image_not_found")


class Traffic:
    """Uploads, deletions, reads and moves to and fro, beside each other."""

    def __init__(self, service: Service) -> None:
        self.images: dict[str, dict[str, bytes]] = {}  # those that are kept, with their variants
        self._s = service
        self._over = anyio.Event()

    async def run(self, users: int, each: int) -> None:
        """Until each user has uploaded so many images, and deleted a third of them."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._move)
            group.start_soon(self._read)
            async with anyio.create_task_group() as uploads:
                for user in range(users):
                    uploads.start_soon(self._upload, user, each)
            self._over.set()

    async def _upload(self, user: int, each: int) -> None:
        for number in range(each):
            job = await self._s.completed(make.jpeg(80, 60, user * 100 + number))
            before = await variants(self._s, job["image_id"])
            if number % 3 == 2:
                gone = await self._s.http.delete(f"/api/v1/images/{job['image_id']}", headers=self._s.bearer())
                assert gone.status_code == 200
            else:
                self.images[job["image_id"]] = before

    async def _read(self) -> None:
        while not self._over.is_set():
            await anyio.sleep(0.01)
            for image_id, before in list(self.images.items()):
                assert await variants(self._s, image_id) == before

    async def _move(self) -> None:
        to = "other"
        while not self._over.is_set():
            report = await carried_out(self._s, "migrate", to=to)
            assert (report["state"], report["findings"]) == ("done", []), report
            to = "local" if to == "other" else "other"


@pytest.mark.parametrize("each", [6, pytest.param(60, marks=pytest.mark.torture)])
async def test_while_everything_happens(tmp_path: Path, each: int) -> None:
    """Moved to and fro beside uploads, deletions and readers."""
    async with keeping(tmp_path) as s:
        traffic = Traffic(s)
        with within(WAIT_SECONDS * each / 5):
            await traffic.run(2, each)
        assert (await carried_out(s, "migrate", to="other"))["well"] is True
        await s.state.jobs.housekeeping.sweep()
        assert s.stored() == []
        kept = {key(image_id, size) for image_id in traffic.images for size in SIZES}
        assert files(tmp_path / "other") == kept


async def test_copies_stay_when_nobody_knows_what_the_database_did(tmp_path: Path) -> None:
    refuse = "BEFORE UPDATE OF storage_backend ON processing_jobs BEGIN INSERT INTO no_table VALUES (1); END"
    async with keeping(tmp_path) as s:
        images = await several(s, 1)
        everything = set(s.stored())
        await s.sql(f"CREATE TRIGGER refuse {refuse}")
        report = await carried_out(s, "migrate", to="other")
        assert report["state"] == "failed" and "database" in report["error"]
        assert set(s.stored()) == everything == files(tmp_path / "other")
        await s.sql("DROP TRIGGER refuse")
    async with keeping(tmp_path) as s:
        assert (await carried_out(s, "migrate", to="other"))["well"] is True
        for image_id, before in images.items():
            assert await variants(s, image_id) == before


async def test_deleted_image_of_the_other_backend_leaves_nothing(tmp_path: Path) -> None:
    async with keeping(tmp_path) as s:
        (image_id,) = await several(s, 1)
        await carried_out(s, "migrate", to="other")
        assert (await s.http.delete(f"/api/v1/images/{image_id}", headers=s.bearer())).json()["files_removed"] == 4
        assert files(tmp_path / "other") == set()


async def test_copies_of_a_move_that_was_cut_short_go_with_the_image(tmp_path: Path) -> None:
    """Their row names both backends until one of them is known to be free of them."""
    async with keeping(tmp_path) as s:
        deleted, moved = await several(s, 2)
        for image_id in (deleted, moved):
            await s.sql("UPDATE processing_jobs SET also_in = 'other' WHERE image_id = ?", image_id)
            for size in SIZES:
                copy = tmp_path / "other" / key(image_id, size, "a/b")
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(await s.variant(image_id, size))
        answer = await s.http.delete(f"/api/v1/images/{deleted}", headers=s.bearer())
        assert answer.json()["files_removed"] == 4
        assert files(tmp_path / "other") == {key(moved, size, "a/b") for size in SIZES}
        assert (await carried_out(s, "migrate", to="other"))["well"] is True
        assert await s.sql("SELECT also_in FROM processing_jobs") == [(None,), (None,)]


async def test_deletion_is_not_over_while_a_copy_may_be_left(tmp_path: Path) -> None:
    async with keeping(tmp_path) as s:
        (image_id,) = await several(s, 1)
        await s.sql("UPDATE processing_jobs SET also_in = 's9'")  # which is not configured any more
        assert (await s.http.delete(f"/api/v1/images/{image_id}", headers=s.bearer())).status_code == 200
        assert await s.sql("SELECT processed_paths <> '{}', also_in FROM processing_jobs") == [(1, "s9")]
        await s.sql("UPDATE processing_jobs SET also_in = 'other'")
        await s.state.jobs.housekeeping.sweep()
        assert await s.sql("SELECT processed_paths, also_in FROM processing_jobs") == [("{}", None)]


async def test_old_copies_that_were_left_go_with_the_next_run(tmp_path: Path) -> None:
    async with keeping(tmp_path) as s:
        images = await several(s, 2)
        before = {path: (s.settings.storage.path / path).read_bytes() for path in s.stored()}
        assert (await carried_out(s, "migrate", to="other"))["well"] is True
        for path, data in before.items():  # as if it had been killed right after its rows were changed
            (s.settings.storage.path / path).write_bytes(data)
        await s.sql("UPDATE processing_jobs SET also_in = 'local'")
        assert (await carried_out(s, "migrate", to="other", dry_run=True))["counts"] == {}
        assert set(s.stored()) == before.keys()
        report = await carried_out(s, "migrate", to="other")
        assert (report["well"], report["counts"]) == (True, {"old_copies_removed": 8})
        assert s.stored() == [] and await s.sql("SELECT DISTINCT also_in FROM processing_jobs") == [(None,)]
        for image_id, was in images.items():
            assert await variants(s, image_id) == was


async def test_row_of_a_backend_that_is_not_configured(tmp_path: Path) -> None:
    async with keeping(tmp_path) as s:
        await several(s, 1)
        await s.sql("UPDATE processing_jobs SET storage_backend = 's9'")
        for verb, order in (("migrate", {"to": "other"}), ("verify", {})):
            report: dict[str, Any] = await carried_out(s, verb, **order)
            assert ("no_backend", "s9", "") in found(report) and report["well"] is False
        assert (await task(s))["verb"] == "verify"
