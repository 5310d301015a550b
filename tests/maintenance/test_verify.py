"""What verify finds, and what gc removes and what it never does."""

import os
import time
from pathlib import Path

import anyio
import pytest

from fixtures import make
from imgsvc.storage.base import StorageError
from imgsvc.storage.local import LocalStorage
from tests.conftest import WAIT_SECONDS, Service
from tests.support.maintenance import API, SIZES, begin, carried_out, ended, files, found, keeping, key, task, variants
from tests.support.speed import within

TINY = make.tiny()
UNKNOWN = "00000000-0000-4000-8000-000000000000"
DAY = 86_400


def plant(path: Path, data: bytes = b"12345", age_seconds: float = 2 * DAY) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    moment = time.time() - age_seconds
    os.utime(path, (moment, moment))


async def test_what_is_well_is_said_to_be(tmp_path: Path) -> None:
    async with keeping(tmp_path) as s:
        for number in range(3):
            await s.completed(make.tiny(number), bucket="a/b")
        failed = await s.ended(await s.upload(TINY[: len(TINY) // 2]))
        assert failed["status"] == "failed"
        s.state.jobs.queue.hold()
        await s.upload(TINY)
        for digests in (False, True):
            report = await carried_out(s, "verify", digests=digests, grace_seconds=0)
            assert (report["state"], report["well"], report["findings"]) == ("done", True, [])
            assert report["counts"]["images"] == 3
            assert report["counts"]["files"] == 12
            assert report["counts"]["bytes"] == sum(
                (s.settings.storage.path / name).stat().st_size for name in s.stored()
            )


async def test_every_planted_fault_is_listed_and_nothing_else(tmp_path: Path) -> None:
    async with keeping(tmp_path) as s:
        lost, short, changed, well = [(await s.completed(make.tiny(n)))["image_id"] for n in range(4)]
        root = s.settings.storage.path
        (root / key(lost, "large")).unlink()
        (root / key(short, "medium")).write_bytes(b"1234")
        data = bytearray((root / key(changed, "thumbnail")).read_bytes())
        data[-1] ^= 1
        (root / key(changed, "thumbnail")).write_bytes(data)
        plant(root / key(UNKNOWN, "large"))
        plant(root / key(well, "huge"))
        plant(root / key(well, "large", "elsewhere"))
        plant(root / f"photos/processed/large/.{well}_large.webp.partial")
        plant(root / "photos/notes.txt")
        plant(root / key(UNKNOWN, "medium"), age_seconds=60)
        plant(tmp_path / "other" / key(well, "large"))
        s.state.jobs.queue.hold()
        waiting = (await s.upload(TINY)).json()["job_id"]
        (s.settings.data / "staging" / waiting).unlink()

        expected = {
            ("missing", "local", key(lost, "large")),
            ("wrong_size", "local", key(short, "medium")),
            ("orphaned", "local", key(UNKNOWN, "large")),
            ("orphaned", "local", key(well, "huge")),
            ("orphaned", "local", key(well, "large", "elsewhere")),
            ("orphaned", "local", f"photos/processed/large/.{well}_large.webp.partial"),
            ("foreign", "local", "photos/notes.txt"),
            ("orphaned", "other", key(well, "large")),
            ("no_source", "staging", waiting),
        }
        report = await carried_out(s, "verify")
        assert found(report) == expected
        assert (report["state"], report["well"], report["found"]) == ("done", False, 9)
        assert report["counts"].items() >= {"orphaned": 5, "orphaned_bytes": 25, "settling": 1, "missing": 1}.items()
        (size,) = [one for one in report["findings"] if one["kind"] == "wrong_size"]
        assert (size["size_bytes"], size["image_id"]) == (4, short) and size["expected_bytes"] > 4

        report = await carried_out(s, "verify", digests=True, listed=1)
        assert (report["found"], report["counts"]["wrong_digest"], len(report["findings"])) == (10, 1, 1)


async def test_gc_takes_what_nobody_names_and_nothing_else(tmp_path: Path) -> None:
    async with keeping(tmp_path) as s:
        image_id = (await s.completed(TINY))["image_id"]
        before = await variants(s, image_id)
        root = s.settings.storage.path
        old, young, foreign = key(UNKNOWN, "large"), key(UNKNOWN, "medium"), "photos/notes.txt"
        half = f"photos/processed/large/.{image_id}_large.webp.partial"
        kept = set(s.stored())
        for name in (old, foreign, half):
            plant(root / name)
        plant(root / young, age_seconds=DAY / 2)
        everything = set(s.stored())

        report = await carried_out(s, "gc")
        assert (report["well"], found(report)) == (True, {("orphaned", "local", old), ("orphaned", "local", half)})
        assert set(s.stored()) == everything

        report = await carried_out(s, "gc", dry_run=False)
        assert (report["well"], report["findings"]) == (True, [])
        assert report["counts"].items() >= {"removed": 2, "removed_bytes": 10, "foreign": 1, "settling": 1}.items()
        assert set(s.stored()) == kept | {foreign, young}

        await carried_out(s, "gc", dry_run=False, foreign=True, older_than_seconds=0)
        assert set(s.stored()) == kept
        assert await variants(s, image_id) == before


class Stubborn(LocalStorage):
    async def remove(self, bucket: str, key: str) -> bool:
        if UNKNOWN in key:
            raise StorageError("removing failed: Read-only file system")
        return await super().remove(bucket, key)


async def test_gc_says_what_it_could_not_remove(tmp_path: Path) -> None:
    async with keeping(tmp_path, storage=Stubborn(tmp_path / "data" / "storage")) as s:
        plant(s.settings.storage.path / key(UNKNOWN, "large"))
        plant(s.settings.storage.path / key(UNKNOWN.replace("0", "1"), "large"))
        report = await carried_out(s, "gc", dry_run=False)
        assert (report["well"], found(report)) == (False, {("not_removed", "local", key(UNKNOWN, "large"))})
        assert report["counts"]["removed"] == 1
        assert s.stored() == [key(UNKNOWN, "large")]


class Watched(LocalStorage):
    """Waits where gc asks for a file's size: between its looks at the row."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked, self.go = anyio.Event(), anyio.Event()

    async def size(self, bucket: str, key: str) -> int | None:
        self.asked.set()
        await self.go.wait()
        return await super().size(bucket, key)


async def test_gc_looks_at_the_row_again_before_it_removes(tmp_path: Path) -> None:
    storage = Watched(tmp_path / "data" / "storage")
    async with keeping(tmp_path, storage=storage) as s:
        image_id = (await s.completed(TINY))["image_id"]
        ((paths,),) = await s.sql("SELECT processed_paths FROM processing_jobs")
        await s.sql("UPDATE processing_jobs SET processed_paths = '{}'")
        assert (await begin(s, "gc", dry_run=False, older_than_seconds=0)).status_code == 202
        await storage.asked.wait()
        await s.sql("UPDATE processing_jobs SET processed_paths = ?", paths)
        storage.go.set()
        report = await ended(s)
        assert (report["well"], report["counts"]) == (True, {})
        assert set(await variants(s, image_id)) == set(SIZES)


@pytest.mark.parametrize("each", [6, pytest.param(60, marks=pytest.mark.torture)])
async def test_gc_and_verify_beside_uploads_deletions_and_retries(tmp_path: Path, each: int) -> None:
    """With no time of grace at all: nothing that is being made is taken, nothing that is going is reported."""
    completed: dict[str, dict[str, bytes]] = {}
    over = anyio.Event()

    async def upload(s: Service, seed: int) -> None:
        for number in range(each):
            job = await s.completed(make.jpeg(80, 60, seed * 100 + number))
            if number % 3 == 0:
                gone = await s.http.delete(f"/api/v1/images/{job['image_id']}", headers=s.bearer())
                assert gone.status_code == 200
            else:
                completed[job["image_id"]] = await variants(s, job["image_id"])

    async def keep_house(s: Service) -> None:
        while not over.is_set():
            assert (await carried_out(s, "gc", dry_run=False, older_than_seconds=0))["counts"].get("removed", 0) == 0
            report = await carried_out(s, "verify", digests=True, grace_seconds=0)
            assert report["well"], report

    async with keeping(tmp_path) as s, anyio.create_task_group() as group:
        group.start_soon(keep_house, s)
        async with anyio.create_task_group() as uploads:
            for seed in range(3):
                uploads.start_soon(upload, s, seed)
        over.set()
        assert len(completed) == 2 * each
        for image_id, before in completed.items():
            assert await variants(s, image_id) == before
    assert len(files(tmp_path / "data" / "storage")) == 2 * each * 4


async def test_one_at_a_time_and_for_the_operator_only(tmp_path: Path) -> None:
    storage = Watched(tmp_path / "data" / "storage")
    async with keeping(tmp_path, storage=storage) as s:
        assert (await task(s))["state"] == "none"
        assert (await s.http.post(f"{API}/verify", json={})).status_code == 401
        assert (await s.http.get(f"{API}/task")).status_code == 401
        assert (await begin(s, "gc", older_than_seconds=-1)).status_code == 422
        assert (await begin(s, "verify", dry_run=True)).status_code == 422
        assert (await begin(s, "gc", dry_run=0)).status_code == 422
        await s.completed(TINY)
        assert (await begin(s, "verify")).status_code == 202
        await storage.asked.wait()
        refused = await begin(s, "gc")
        assert (refused.status_code, refused.json()["code"]) == (409, "task_running")
        assert "verify" in refused.json()["detail"]
        assert (await s.http.delete(f"{API}/task")).status_code == 401
        assert (await s.http.delete(f"{API}/task", headers=s.operator)).status_code == 202
        assert (await ended(s))["state"] == "cancelled"
        storage.go.set()
        assert (await carried_out(s, "verify", grace_seconds=0))["well"] is True


async def test_task_ends_with_the_service(tmp_path: Path) -> None:
    storage = Watched(tmp_path / "data" / "storage")
    with within(WAIT_SECONDS):
        async with keeping(tmp_path, storage=storage) as s:
            await s.completed(TINY)
            await begin(s, "verify")
            await storage.asked.wait()
            upkeep = s.state.maintenance
    assert upkeep.task and upkeep.task.state == "cancelled"


@pytest.mark.parametrize("verb", ["verify", "gc"])
async def test_storage_that_can_not_be_asked(tmp_path: Path, verb: str) -> None:
    async with keeping(tmp_path) as s:
        (tmp_path / "other").rmdir()
        (tmp_path / "other").write_bytes(b"a file in the folder's place")
        report = await carried_out(s, verb)
        assert report["state"] == "failed" and "listing failed" in report["error"]
