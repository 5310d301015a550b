"""What is made of a completed image later: the image stays completed, and what it named stays served."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from fixtures import make
from imgsvc.imaging.recipe import Recipe, Variant
from imgsvc.jobs.table.further_changes import MadeFiles
from imgsvc.jobs.table.further_render import FurtherRender, NewRender
from imgsvc.jobs.table.further_table import FurtherTable
from imgsvc.jobs.table.model import Job
from imgsvc.jobs.table.writer import DatabaseUnavailable
from imgsvc.storage.keys import StoredName, variant_key
from imgsvc.storage.local import LocalStorage
from tests.conftest import WAIT_SECONDS, Service, Starter, service
from tests.support.invariants import Places, assert_sound
from tests.support.speed import within

PHOTO = make.jpeg(320, 240)
SMALLER = Variant("thumbnail", 100, 60, 4)


def new(*variants: Variant) -> NewRender:
    return NewRender("focal", Recipe(variants or (SMALLER,), 50_000_000, 1000), "variant", 100 << 20)


async def completed(s: Service) -> Job:
    """A completed job whose source is gone."""
    ids = await s.completed(PHOTO)
    with within(WAIT_SECONDS):
        while (job := await s.state.jobs.table.job(ids["job_id"])) is None or s.state.jobs.queue.active_runs:
            await anyio.sleep(0.01)
    return job


async def ordered(s: Service, job: Job, *variants: Variant) -> None:
    assert await s.state.jobs.table.further.order(job, new(*variants))
    s.state.jobs.queue.wake()


async def rows(s: Service, table: str = "renders") -> list[dict[str, Any]]:
    names = [row[1] for row in await s.sql(f"PRAGMA table_info ({table})")]
    return [dict(zip(names, row, strict=True)) for row in await s.sql(f"SELECT * FROM {table}")]


async def over(s: Service) -> list[dict[str, Any]]:
    """The rows of `renders` once none waits or runs."""
    with within(WAIT_SECONDS):
        while any(row["state"] != "failed" for row in await rows(s)):
            await anyio.sleep(0.02)
    return await rows(s)


async def replaced_and_ordered_again(s: Service) -> Job:
    """An image whose variants were made once more, and whose next render waits."""
    job = await completed(s)
    await ordered(s, job)
    await over(s)
    s.state.jobs.queue.hold()
    assert await s.state.jobs.table.further.order(job, new())
    return job


async def latest(s: Service, job: Job) -> Job:
    found = await s.state.jobs.table.job(job.job_id)
    assert found is not None
    return found


def places(s: Service) -> Places:
    return Places(s.settings.database.path, {"local": s.settings.storage.path})


async def test_variant_made_anew(start: Starter) -> None:
    async with start() as s:
        job = await completed(s)
        before = {name: await s.variant(job.image_id, name) for name in job.paths}
        old = f"/storage/photos/{job.paths['thumbnail']}"
        await ordered(s, job)
        assert await over(s) == []
        after = await latest(s, job)
        assert after.paths == job.paths | {"thumbnail": variant_key("thumbnail", job.image_id, revision=1)}
        assert (after.status, after.attempt_count, after.completed_at) == ("completed", 0, job.completed_at)
        made = after.measured["variants"]["thumbnail"]
        assert (made["width"], made["height"], made["rendered_from"]) == (100, 75, "original")
        assert after.recipe.variants[-1] == SMALLER
        assert await s.variant(job.image_id, "medium") == before["medium"]
        bytes_now = await s.variant(job.image_id, "thumbnail")
        assert bytes_now != before["thumbnail"]
        moved = await s.http.get(old)
        assert (moved.status_code, moved.headers["Cache-Control"]) == (301, "public, max-age=3600")
        assert (await s.http.get(moved.headers["Location"])).content == bytes_now
        kinds = [row[0] for row in await s.sql("SELECT event_type FROM image_upload_events ORDER BY id")]
        assert kinds[-2:] == ["render_ordered", "rendered_again"]
        assert_sound(places(s), "settled")
        await s.sql("UPDATE retired_keys SET remove_at = '2020'")
        await s.state.jobs.housekeeping.sweep()
        assert not (s.settings.storage.path / "photos" / job.paths["thumbnail"]).exists()
        assert (await s.http.get(old)).status_code == 301
        await s.sql("UPDATE retired_keys SET redirect_until = '2020'")
        assert (await s.http.get(old)).status_code == 404
        await s.state.jobs.housekeeping.sweep()
        assert await rows(s, "retired_keys") == []
        assert_sound(places(s), "settled")


async def test_signed_url_leads_to_one_that_ends_with_it(start: Starter) -> None:
    async with start(storage={"signed_urls": True}) as s:
        job = await completed(s)
        headers = s.bearer()
        info = f"/api/v1/images/{job.image_id}?size=thumbnail"
        old = (await s.http.get(info, headers=headers)).json()["url"]
        await ordered(s, job)
        await over(s)
        moved = await s.http.get(old)
        assert moved.status_code == 301 and moved.headers["Cache-Control"].startswith("private, max-age=")
        assert moved.headers["Location"].split("?")[1].split("&")[0] == old.split("?")[1].split("&")[0]
        assert (await s.http.get(moved.headers["Location"])).status_code == 200


async def test_uploads_go_first(start: Starter) -> None:
    async with start() as s:
        job = await completed(s)
        further = s.state.jobs.table.further
        s.state.jobs.queue.hold()  # else a lane may claim the upload that is pretended here
        await s.sql("UPDATE processing_jobs SET queue = 'renders'")
        assert await further.order(job, new())
        assert await further.claim(1 << 40, nothing_running=True) is None
        await s.sql("UPDATE processing_jobs SET queue = NULL")
        s.state.jobs.queue._stopping = False
        s.state.jobs.queue.wake()
        assert await over(s) == []


async def test_later_order_replaces_the_waiting_one(start: Starter) -> None:
    async with start() as s:
        job = await completed(s)
        s.state.jobs.queue.hold()
        for side in (90, 80):
            assert await s.state.jobs.table.further.order(job, new(replace(SMALLER, side=side)))
        (waiting,) = await rows(s)
        assert json.loads(waiting["keys"]) == {"thumbnail": variant_key("thumbnail", job.image_id, revision=2)}
    async with start() as s:
        assert await over(s) == []
        assert (await latest(s, job)).measured["variants"]["thumbnail"]["width"] == 80
        await s.state.jobs.housekeeping.sweep()
        assert_sound(places(s), "settled")


async def test_replaced_run_does_not_end_the_one_that_replaced_it(start: Starter) -> None:
    async with start() as s:
        job, further = await completed(s), s.state.jobs.table.further
        s.state.jobs.queue.hold()
        runs = []
        for side in (90, 80):
            assert await further.order(job, new(replace(SMALLER, side=side)))
            claimed = await further.claim(1 << 40, nothing_running=True)
            assert claimed is not None
            runs.append(claimed.render)
        assert not await further.finish(runs[0], MadeFiles({}, timedelta(0)))
        await further.overtaken(job, runs[0])
        assert (await latest(s, job)).paths == job.paths
        (row,) = await rows(s)
        assert (row["state"], json.loads(row["keys"])) == ("running", runs[1].keys)


@pytest.fixture
async def interrupted(tmp_path: Path) -> tuple[Path, Job]:
    """A folder whose service was killed after it had put a file and before it named it."""
    folder = tmp_path / "data"
    async with service(folder) as s:
        job = await completed(s)
        s.state.jobs.queue.hold()
        assert await s.state.jobs.table.further.order(job, new())
    with closing(sqlite3.connect(folder / "imgsvc.db")) as db, db:
        db.execute("UPDATE renders SET state = 'running', generation = 1, starts = 1")
    key = variant_key("thumbnail", job.image_id, revision=1)
    (folder / "storage" / "photos" / key).write_bytes(b"half")
    return folder, job


async def test_start_runs_it_again(interrupted: tuple[Path, Job]) -> None:
    folder, job = interrupted
    assert_sound(Places(folder / "imgsvc.db", {"local": folder / "storage"}), "killed")
    async with service(folder) as s:
        assert await over(s) == []
        assert (await latest(s, job)).measured["variants"]["thumbnail"]["width"] == 100
        assert_sound(places(s), "settled")


async def test_interrupted_ten_times(interrupted: tuple[Path, Job]) -> None:
    folder, job = interrupted
    with closing(sqlite3.connect(folder / "imgsvc.db")) as db, db:
        db.execute("UPDATE renders SET starts = 10")
    async with service(folder) as s:
        (row,) = await over(s)
        assert (row["error_code"], row["state"]) == ("interrupted", "failed")
        await s.state.jobs.housekeeping.sweep()
        assert (await latest(s, job)).paths == job.paths
        assert await rows(s, "retired_keys") == []
        assert_sound(places(s), "settled")


async def test_one_that_fails_for_good_keeps_the_picture(start: Starter) -> None:
    async with start() as s:
        job = await completed(s)
        (s.settings.storage.path / "photos" / job.paths["original"]).write_bytes(b"damaged")
        await ordered(s, job)
        (row,) = await over(s)
        assert row["error_code"] == "source_damaged" and row["error"]
        assert (await latest(s, job)).status == "completed"
        assert (await latest(s, job)).paths == job.paths
        assert (await s.job(job.job_id))["error"] is None


async def test_storage_that_refuses_is_tried_three_times(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    async with start(jobs={"retry_delay_seconds": 0.01}) as s:
        job, put = await completed(s), LocalStorage.put_all
        refused: list[str] = []

        async def refuse(storage: LocalStorage, bucket: str, sources: Mapping[str, Path]) -> None:
            await put(storage, bucket, sources)  # they may have been stored all the same
            refused.extend(sources)
            raise OSError(5, "refused")

        monkeypatch.setattr(LocalStorage, "put_all", refuse)
        await ordered(s, job)
        (row,) = await over(s)
        assert (row["attempts"], row["error_code"], len(refused)) == (3, "storage_error", 3)
        await s.state.jobs.housekeeping.sweep()
        assert sorted(s.stored()) == sorted(f"photos/{key}" for key in job.paths.values())


async def test_deletion_goes_by_the_list_of_keys(start: Starter) -> None:
    async with start() as s:
        job = await replaced_and_ordered_again(s)
        key = variant_key("thumbnail", job.image_id, revision=2)
        (s.settings.storage.path / "photos" / key).write_bytes(b"put by a run that was killed")
        answer = await s.http.delete(f"/api/v1/images/{job.image_id}", headers=s.bearer())
        assert answer.json()["files_removed"] == 6
        assert s.stored() == []
        await s.state.jobs.housekeeping.sweep()
        assert await rows(s) == await rows(s, "retired_keys") == []
        assert_sound(places(s), "settled")


async def test_deletion_during_a_run(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    async with start() as s:
        job, put = await completed(s), LocalStorage.put_all
        storing, go_on = anyio.Event(), anyio.Event()

        async def wait(storage: LocalStorage, bucket: str, sources: Mapping[str, Path]) -> None:
            storing.set()
            await go_on.wait()
            await put(storage, bucket, sources)

        monkeypatch.setattr(LocalStorage, "put_all", wait)
        await ordered(s, job)
        await storing.wait()
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: s.http.delete(f"/api/v1/images/{job.image_id}", headers=s.bearer()))
            with within(WAIT_SECONDS):
                while await s.state.jobs.table.job(job.job_id) is not None:
                    await anyio.sleep(0.01)
            go_on.set()
        await s.state.jobs.housekeeping.sweep()
        assert s.stored() == []
        assert_sound(places(s), "settled")


async def test_move_during_a_run_makes_it_run_again(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    async with start() as s:
        job, put = await completed(s), LocalStorage.put_all
        moved: list[str] = []

        async def move_and_put(storage: LocalStorage, bucket: str, sources: Mapping[str, Path]) -> None:
            await put(storage, bucket, sources)
            if not moved:
                moved.extend(sources)
                assert await s.state.jobs.table.files.move(await latest(s, job), "elsewhere")

        monkeypatch.setattr(LocalStorage, "put_all", move_and_put)
        await ordered(s, job)
        with within(WAIT_SECONDS):
            while not (row := (await rows(s))[0])["error_code"]:  # nothing can be read from there
                await anyio.sleep(0.02)
        assert (row["backend"], row["generation"]) == ("elsewhere", 2)
        (retired,) = await rows(s, "retired_keys")
        assert (retired["backend"], retired["key"]) == ("local", moved[0])


async def test_lost_confirmation_removes_nothing(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The change that names the new file was committed, and the run gets the answer that it was not."""
    async with start() as s:
        job, finish = await completed(s), FurtherTable.finish
        lost: list[bool] = []

        async def committed(table: FurtherTable, render: FurtherRender, made: MadeFiles) -> bool:
            recorded = await finish(table, render, made)
            if not lost:
                lost.append(recorded)
                raise DatabaseUnavailable("the disk is full")
            return recorded

        monkeypatch.setattr(FurtherTable, "finish", committed)
        await ordered(s, job)
        assert await over(s) == []
        with within(WAIT_SECONDS):
            while s.state.jobs.queue.active_runs:
                await anyio.sleep(0.01)
        await s.state.jobs.housekeeping.sweep()
        assert lost == [True]
        assert len(await s.variant(job.image_id, "thumbnail")) > 0
        assert_sound(places(s), "settled")


async def test_gc_knows_what_is_being_made_and_what_was_replaced(start: Starter) -> None:
    async with start() as s:
        job = await replaced_and_ordered_again(s)
        folder = s.settings.storage.path / "photos"
        made = variant_key("thumbnail", job.image_id, revision=2)
        stray = variant_key("thumbnail", job.image_id, revision=9)
        for key in (made, stray):
            (folder / key).write_bytes(b"bytes")
        body = {"older_than_seconds": 0, "dry_run": False}
        answer = await s.http.post("/api/v1/operator/storage/gc", json=body, headers=s.operator)
        assert answer.status_code == 202
        with within(WAIT_SECONDS):
            while (await s.http.get("/api/v1/operator/storage/task", headers=s.operator)).json()["state"] == "running":
                await anyio.sleep(0.02)
        assert not (folder / stray).exists()
        assert (folder / made).exists() and (folder / job.paths["thumbnail"]).exists()


@pytest.mark.parametrize(
    ("key", "variant"),
    [
        ("processed/a/{}_a.webp", "a"),
        ("processed/a/{}_a_r1.webp", "a"),
        ("processed/a/{}_a_r12.jpeg", "a"),
        ("processed/a/{}_a.avif", "a"),
        ("processed/a_r2/{}_a_r2.webp", "a_r2"),
        ("processed/a_r2/{}_a_r2_r3.webp", "a_r2"),
        ("processed/a/{}_a_r0.webp", None),
        ("processed/a/{}_a_r01.webp", None),
        ("processed/a/{}_a_r.webp", None),
        ("processed/a/{}_a.png", None),
        ("processed/a/{}_b.webp", None),
    ],
)
def test_names_of_stored_files(key: str, variant: str | None) -> None:
    image_id = "6dfb1ae8-4a5c-4b7e-8b38-0f6d5c2f7a10"
    found = StoredName.of(f"b/c/{key.format(image_id)}")
    assert (found and (found.bucket, found.image_id, found.variant, found.partial)) == (
        variant and ("b/c", image_id, variant, False)
    )


async def test_side_is_woken_while_a_claim_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the claim leaves for lack of memory has no other wake, if memory becomes free meanwhile."""
    async with service(tmp_path) as s:
        further = s.state.jobs.table.further
        write, meanwhile = further._write, []

        async def watched(*change: Any, **options: Any) -> Any:
            meanwhile.append(further.may_wait)
            return await write(*change, **options)

        monkeypatch.setattr(further, "_write", watched)
        further.wake()
        assert await further.claim(0, nothing_running=False, held=False) is None
        assert meanwhile and all(meanwhile)
