"""DELETE of an image: gone with one commit, then its run ended and its files removed, for sure."""

import asyncio
import sqlite3
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from fixtures import make
from imgsvc import testing
from imgsvc.storage.memory import MemoryStorage
from tests.conftest import WAIT_SECONDS, Service, Starter
from tests.support.speed import seconds, within

TINY = make.tiny()
IMAGES = "/api/v1/images"
SIZES = ("original", "large", "medium", "thumbnail")
PERSONAL = ("user_id", "org_id", "original_filename", "idempotency_key", "idempotency_digest")


async def delete(s: Service, image_id: str, user: str = "alice", **more: Any) -> httpx.Response:
    return await s.http.delete(f"{IMAGES}/{image_id}", headers=s.bearer(user, **more))


async def removed(s: Service, image_id: str) -> int:
    answer = await delete(s, image_id)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body == {"image_id": image_id, "deleted": True, "files_removed": body["files_removed"]}
    return int(body["files_removed"])


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def sql(s: Service, statement: str, *values: Any) -> list[Any]:
    with closing(sqlite3.connect(s.settings.database.path)) as db, db:
        db.row_factory = sqlite3.Row
        return db.execute(statement, values).fetchall()


def row(s: Service, image_id: str) -> dict[str, Any]:
    return dict(sql(s, "SELECT * FROM processing_jobs WHERE image_id = ?", image_id)[0])


def events(s: Service, image_id: str) -> list[str]:
    return [kind for (kind,) in sql(s, "SELECT event_type FROM image_upload_events WHERE image_id = ?", image_id)]


def scratch(s: Service) -> list[str]:
    return [path.name for path in (s.settings.data / "scratch").iterdir() if path.name != "health"]


def published(s: Service) -> list[str]:
    return [name for name in s.stored() if not name.startswith(".health")]


def nothing_left(s: Service) -> bool:
    return not (published(s) or s.staged() or scratch(s))


async def gone(s: Service, job_id: str, image_id: str) -> None:
    for path in (f"jobs/{job_id}", f"jobs/{job_id}/result"):
        refused(await s.http.get(f"{IMAGES}/{path}"), 404, "job_not_found")
    for path in ("", "/all", "/direct", *(f"/direct?size={size}" for size in SIZES)):
        refused(await s.http.get(f"{IMAGES}/{image_id}{path}"), 404, "image_not_found")
    for size in SIZES:
        url = f"/storage/photos/processed/{size}/{image_id}_{size}.webp"
        refused(await s.http.get(url), 404, "image_not_found")
    batch = (await s.http.get(f"{IMAGES}/batch", params={"image_ids": image_id, "size": "thumbnail"})).json()
    assert (batch["found"], batch["missing"]) == (0, [image_id])
    refused(await delete(s, image_id), 404, "image_not_found")


async def until(reached: Callable[[], object]) -> None:
    with within(WAIT_SECONDS):
        while not reached():
            await anyio.sleep(0.005)


async def test_deleted_image_is_gone(start: Starter) -> None:
    async with start() as s:
        job, other = await s.completed(TINY), await s.completed(TINY)
        assert await removed(s, job["image_id"]) == 4
        await gone(s, job["job_id"], job["image_id"])
        assert len(published(s)) == 4
        assert await s.variant(other["image_id"], "medium")
        assert await removed(s, other["image_id"]) == 4
        assert nothing_left(s)
        assert events(s, job["image_id"])[-2:] == ["completed", "deleted"]


class SlowToRemove(MemoryStorage):
    """The first removal waits, the others do not."""

    def __init__(self) -> None:
        super().__init__()
        self.removing, self.go_on = anyio.Event(), anyio.Event()

    async def remove(self, bucket: str, key: str) -> bool:
        if bucket != ".health" and not self.removing.is_set():
            self.removing.set()
            await self.go_on.wait()
        return await super().remove(bucket, key)


async def test_cleanup_leaves_the_files_of_a_deletion_to_it(tmp_path: Path) -> None:
    """Else the answer would count only those that cleanup had not removed yet."""
    storage = SlowToRemove()
    async with testing.serving(testing.settings_in(tmp_path), storage=storage) as (app, http):
        s = Service(app, testing.settings_in(tmp_path), http)
        image_id = (await s.completed(TINY))["image_id"]
        deleting = asyncio.create_task(removed(s, image_id))
        with within(WAIT_SECONDS):
            await storage.removing.wait()
        await s.state.jobs.housekeeping.sweep()
        storage.go_on.set()
        assert await deleting == 4


async def test_only_the_uploader_may(start: Starter) -> None:
    async with start() as s:
        job = await s.completed(TINY)
        image_id = job["image_id"]
        for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic eA=="}):
            answer = await s.http.delete(f"{IMAGES}/{image_id}", headers=headers)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        expired = await delete(s, image_id, ttl_seconds=-60)
        refused(expired, 401, "token_expired")
        denied = await delete(s, image_id, "bob")
        refused(denied, 403, "permission_denied")
        assert denied.json()["error"] == "Permission denied: image:delete"
        refused(await delete(s, image_id, "bob", permissions=["image:admin"]), 403, "permission_denied")
        for user in ("bob", "alice"):
            refused(await delete(s, image_id, user, org_id="elsewhere"), 404, "image_not_found")
        for wrong in ("x", "%00", str(uuid.uuid4()), job["job_id"], "a" * 3000):
            refused(await delete(s, wrong), 404, "image_not_found")
        noted = sql(
            s, "SELECT job_id, metadata ->> 'user_id' FROM image_upload_events WHERE event_type = 'delete_denied'"
        )
        assert [tuple(one) for one in noted] == [(job["job_id"], "bob")]  # once an hour
        assert len(published(s)) == 4
        assert await removed(s, image_id) == 4


async def test_personal_fields_are_cleared(start: Starter) -> None:
    async with start() as s:
        headers = {**s.bearer(), "Idempotency-Key": "mine"}
        fields = {"bucket": "photos", "metadata": '{"name": "secret-name"}'}
        files = {"file": ("secret-file.jpg", TINY)}
        answer = await s.http.post(f"{IMAGES}/upload", data=fields, files=files, headers=headers)
        image_id = (await s.ended(answer))["image_id"]
        before = row(s, image_id)
        assert all(before[column] for column in PERSONAL)
        await removed(s, image_id)
        after = row(s, image_id)
        assert {after[column] for column in PERSONAL} == {None}
        for column in ("client_metadata", "processing_metadata", "processed_paths"):
            assert after[column] == "{}"
        assert after["deleted_at"] and after["staging_path"] is None
        assert "secret" not in str(after) and "alice" not in str(after)


async def test_while_it_waits_and_after_a_restart(start: Starter) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        accepted = (await s.upload(TINY)).json()
        assert await removed(s, accepted["image_id"]) == 1
        await gone(s, **{name: accepted[name] for name in ("job_id", "image_id")})
        assert nothing_left(s)
    async with start() as s:
        assert (await s.completed(TINY))["status"] == "completed"
        await gone(s, **{name: accepted[name] for name in ("job_id", "image_id")})
        assert events(s, accepted["image_id"]) == ["accepted", "deleted"]
        assert len(published(s)) == 4


@pytest.mark.workers
@pytest.mark.parametrize("phase", ["preview", "render"])
async def test_while_a_worker_is_at_it(start: Starter, phase: str) -> None:
    kind, done = ("previews", 0) if phase == "preview" else ("renders", 1)
    async with start() as s:
        accepted = (await s.upload(make.large_jpeg(4000, 3000))).json()
        running = "SELECT 1 FROM image_upload_events WHERE event_type = 'processing' AND metadata ->> 'queue' = ?"
        await until(lambda: sql(s, running, kind))
        began = time.monotonic()
        assert await removed(s, accepted["image_id"]) == 1 + done
        assert time.monotonic() - began < seconds(3)
        assert nothing_left(s)
        assert s.state.jobs.queue.running_tasks == 0
        await gone(s, accepted["job_id"], accepted["image_id"])
        assert (await s.completed(TINY))["status"] == "completed"
        assert len(published(s)) == 4
        assert events(s, accepted["image_id"])[-1] == "deleted"
        stats = (await s.http.get("/api/v1/health/stats")).json()
        assert stats["storage"] == {"total_images": 1, "total_jobs": 1}


@pytest.mark.workers
async def test_at_any_moment(start: Starter) -> None:
    """However far the work has come, a deletion is quick and leaves nothing."""
    photo = make.jpeg(1200, 900)
    async with start() as s:
        for turn in range(12):
            accepted = (await s.upload(photo)).json()
            for _ in range(turn * 3):
                await s.job(accepted["job_id"])
            began = time.monotonic()
            await removed(s, accepted["image_id"])
            assert time.monotonic() - began < seconds(3), turn
            assert nothing_left(s), turn
            refused(await s.http.get(f"{IMAGES}/{accepted['image_id']}"), 404, "image_not_found")


async def test_two_at_once(start: Starter) -> None:
    answers: list[httpx.Response] = []
    async with start() as s:
        image_id = (await s.completed(TINY))["image_id"]

        async def one() -> None:
            answers.append(await delete(s, image_id))

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(one)
        assert sorted(answer.status_code for answer in answers) == [200, 404, 404, 404, 404]
        assert events(s, image_id).count("deleted") == 1


async def test_failed_job_goes_with_its_source(start: Starter) -> None:
    async with start() as s:
        job = await s.ended(await s.upload(TINY[: len(TINY) // 2]))
        assert job["status"] == "failed"
        await removed(s, job["image_id"])
        await gone(s, job["job_id"], job["image_id"])
        assert nothing_left(s)
        assert (await s.http.get("/api/v1/health/failed")).json() == {"failed_jobs": [], "total": 0}


async def test_storage_that_refuses_is_asked_again(start: Starter) -> None:
    """A folder in a variant's place can't be unlinked, not even by root."""
    async with start() as s:
        job = await s.completed(TINY)
        image_id = job["image_id"]
        variant = s.settings.storage.path / f"photos/processed/large/{image_id}_large.webp"
        data = variant.read_bytes()
        variant.unlink()
        variant.mkdir()
        assert await removed(s, image_id) == 3
        await gone(s, job["job_id"], image_id)
        assert row(s, image_id)["processed_paths"] != "{}"
        await s.state.jobs.housekeeping.sweep()
        assert row(s, image_id)["processed_paths"] != "{}"
        variant.rmdir()
        variant.write_bytes(data)
        await s.state.jobs.housekeeping.sweep()
        assert row(s, image_id)["processed_paths"] == "{}"
        assert nothing_left(s)


async def test_source_that_can_not_be_removed_is_asked_for_again(start: Starter) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        image_id, other = [(await s.upload(TINY)).json()["image_id"] for _ in range(2)]
        source = s.settings.data / "staging" / row(s, image_id)["staging_path"]
        source.unlink()
        source.mkdir()
        assert await removed(s, image_id) == 0
        orphan = s.settings.data / "staging" / f"{uuid.uuid4()}.part"
        orphan.write_bytes(TINY)
        await s.state.jobs.housekeeping.sweep()
        assert not orphan.exists(), "one file that stays must not keep the rest"
        assert row(s, image_id)["staging_path"]
        source.rmdir()
        source.write_bytes(TINY)
        await s.state.jobs.housekeeping.sweep()
        assert row(s, image_id)["staging_path"] is None
        assert s.staged() == [row(s, other)["staging_path"]]


async def test_row_that_can_not_forget_its_source_loses_no_image(start: Starter) -> None:
    """Completed once is completed: what fails after it is housekeeping's, not a second end of the run."""
    change = "BEFORE UPDATE OF staging_path ON processing_jobs BEGIN INSERT INTO no_table VALUES (1); END"
    async with start() as s:
        s.state.jobs.queue.hold()
        accepted = await s.upload(TINY)
    await s.sql(f"CREATE TRIGGER refuse {change}")
    async with start() as s:
        job = await s.ended(await s.upload(TINY))
        first = await s.ended(accepted)
        await until(lambda: not scratch(s) and not s.state.jobs.queue.running_tasks)
        await s.sql("DROP TRIGGER refuse")
        again = await s.completed(TINY)
        await s.state.jobs.housekeeping.sweep()
        for one in (first, job, again):
            assert one["status"] == "completed"
            for size in SIZES:
                assert await s.variant(one["image_id"], size)
        assert s.staged() == []
