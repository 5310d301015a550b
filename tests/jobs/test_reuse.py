"""The same photo twice: whose variants are taken over, and that whatever goes wrong ends in a rendering."""

import errno
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from fixtures import make
from imgsvc.jobs.settlement import Settlement
from imgsvc.storage.keys import variant_key
from tests.conftest import Service, Starter
from tests.support.reuse import PHOTO, SIZES, all_of, assert_right, file, inodes, reuse
from tests.support.speed import within


async def test_second_upload_takes_over_the_files_of_the_first(start: Starter) -> None:
    async with start() as s:
        first = await s.completed(PHOTO)
        second = await s.completed(PHOTO, bucket="other/place")
        assert second["image_id"] != first["image_id"] and second["attempts"] == 0
        assert await all_of(s, second["image_id"]) == await all_of(s, first["image_id"])
        await assert_right(s, second["image_id"])
        folder = s.settings.storage.path / "other/place"
        assert [(folder / variant_key(size, second["image_id"])).stat().st_ino for size in SIZES] == inodes(
            s, first["image_id"]
        )
        assert await reuse(s) == {"reused": 1}
        (facts,) = await s.sql(
            "SELECT metadata FROM image_upload_events WHERE event_type = 'completed' AND job_id = ?", second["job_id"]
        )
        assert f'"twin": "{first["job_id"]}"' in facts[0]
        with within(10):
            while s.staged() or s.state.jobs.queue.active_runs:
                await anyio.sleep(0.01)
        assert list((s.settings.data / "scratch").glob("*.*")) == []


async def test_each_image_counts_in_full(start: Starter) -> None:
    async with start(rate_limit={"max_uploads": 3}) as s:
        for number in range(3):
            await s.completed(PHOTO, bucket=f"b{number}")
        assert (await s.upload(PHOTO)).status_code == 429
        text = (await s.http.get("/metrics", headers=s.operator)).text
        stored = sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("image_storage_bytes{"))
        files = list(s.settings.storage.path.rglob("*.webp"))
        assert len(files) == 12 and stored == sum(path.stat().st_size for path in files)
        assert await reuse(s) == {"reused": 2}


async def test_idempotency_key_is_looked_at_first(start: Starter) -> None:
    async with start() as s:
        headers = {**s.bearer(), "Idempotency-Key": "once", "Content-Type": "image/jpeg"}
        answers = []
        for _ in range(2):
            answers.append(await s.http.post("/api/v1/images/upload?bucket=photos", content=PHOTO, headers=headers))
            await s.ended(answers[-1])
        assert answers[0].json()["image_id"] == answers[1].json()["image_id"]
        assert await reuse(s) == {}


@pytest.mark.parametrize(
    "second",
    [
        lambda s: s.upload(PHOTO, user="bob"),
        lambda s: s.upload(make.jpeg(160, 120, 2)),
        lambda s: _upload(s, s.bearer(org_id="elsewhere")),
    ],
    ids=["another user", "other bytes", "another organisation"],
)
async def test_nothing_is_shared_with(start: Starter, second: Callable[[Service], Any]) -> None:
    async with start() as s:
        first = await s.completed(PHOTO)
        job = await s.ended(await second(s))
        assert job["status"] == "completed"
        assert not set(inodes(s, job["image_id"])) & set(inodes(s, first["image_id"]))
        assert await reuse(s) == {}


async def _upload(s: Service, headers: dict[str, str]) -> httpx.Response:
    files = {"file": ("photo.jpg", PHOTO, "image/jpeg")}
    return await s.http.post("/api/v1/images/upload", data={"bucket": "photos"}, files=files, headers=headers)


@pytest.mark.parametrize("changed", [{"reuse": False}, {"webp_quality": 50}], ids=["turned off", "another recipe"])
async def test_nothing_is_reused_where_it_is(start: Starter, changed: dict[str, Any]) -> None:
    async with start() as s:
        first = await s.completed(PHOTO)
    async with start(images=changed) as s:
        second = await s.completed(PHOTO)
        assert not set(inodes(s, second["image_id"])) & set(inodes(s, first["image_id"]))
        assert await reuse(s) == {}


async def test_turned_off_again_what_waits_is_rendered(start: Starter) -> None:
    async with start() as s:
        await s.completed(PHOTO)
        s.state.jobs.queue.hold()
        waiting = (await s.upload(PHOTO)).json()
        assert await s.sql("SELECT count(*) FROM job_sources WHERE twin IS NOT NULL") == [(1,)]
    async with start(images={"reuse": False}) as s:
        with within(20):
            while (await s.job(waiting["job_id"]))["status"] != "completed":
                await anyio.sleep(0.02)
        assert await reuse(s) == {}


async def test_job_that_waits_finds_its_twin_after_a_restart(start: Starter) -> None:
    async with start() as s:
        first = await s.completed(PHOTO)
        s.state.jobs.queue.hold()
        waiting = (await s.upload(PHOTO)).json()
    async with start() as s:
        with within(20):
            while (await s.job(waiting["job_id"]))["status"] != "completed":
                await anyio.sleep(0.02)
        assert inodes(s, waiting["image_id"]) == inodes(s, first["image_id"])


async def test_many_at_once_are_all_right(start: Starter) -> None:
    """Those that wait while the first is rendered get its variants once it is completed."""
    async with start() as s:
        answers: list[httpx.Response] = []

        async def upload() -> None:
            answers.append(await s.upload(PHOTO))

        async with anyio.create_task_group() as group:
            for _ in range(12):
                group.start_soon(upload)
        for answer in answers:
            assert (await s.ended(answer))["status"] == "completed"
            await assert_right(s, answer.json()["image_id"])
        assert await s.sql("SELECT count(*) FROM job_sources WHERE twin IS NOT NULL") == [(0,)]
        assert (await reuse(s)).get("reused", 0) >= 1


def other_bytes(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut_short(path: Path) -> None:
    os.truncate(path, 20)


def replaced_by(make_one: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        shutil.move(path, path.with_suffix(".aside"))
        make_one(path)

    return replace


@pytest.mark.parametrize(
    ("damage", "status"),
    [
        (other_bytes, "differs"),
        (cut_short, "differs"),
        (Path.unlink, "gone"),
        (replaced_by(lambda path: path.symlink_to(path.with_suffix(".aside"))), "error"),
        (replaced_by(os.mkfifo), "differs"),
        (replaced_by(Path.mkdir), "error"),
    ],
    ids=["other bytes", "cut short", "gone", "link", "fifo", "folder"],
)
async def test_damaged_file_of_the_first_is_not_taken_over(
    start: Starter, damage: Callable[[Path], None], status: str
) -> None:
    async with start() as s:
        first = (await s.completed(PHOTO))["image_id"]
        damage(file(s, first, "medium"))
        second = await s.completed(PHOTO)
        await assert_right(s, second["image_id"])
        assert (second["attempts"], await reuse(s)) == (0, {status: 1})
        (facts,) = await s.sql("SELECT metadata FROM image_upload_events WHERE event_type = 'twin_declined'")
        assert f'"reason": "{status}"' in facts[0]
        assert not list(s.settings.storage.path.rglob(".*.partial"))


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EACCES, errno.EIO, errno.ENOSPC])
async def test_link_that_is_refused_is_no_attempt(start: Starter, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    async with start() as s:
        await s.completed(PHOTO)
        monkeypatch.setattr(os, "link", refuse)
        second = await s.completed(PHOTO)
        assert (second["attempts"], await reuse(s)) == (0, {"error": 1})
        assert await s.sql("SELECT starts, attempt_count FROM processing_jobs WHERE job_id = ?", second["job_id"]) == [
            (0, 0)
        ]
        await assert_right(s, second["image_id"])


@pytest.mark.parametrize(
    "column", ["processing_metadata = '{}'", "processed_paths = '{}'", "processing_metadata = '[]'"]
)
async def test_damaged_row_of_the_first_is_no_twin(start: Starter, column: str) -> None:
    async with start() as s:
        first = await s.completed(PHOTO)
        await s.sql(f"UPDATE processing_jobs SET {column} WHERE job_id = ?", first["job_id"])
        second = await s.completed(PHOTO)
        await assert_right(s, second["image_id"])


async def test_deleting_one_leaves_the_other(start: Starter) -> None:
    async with start() as s:
        first, second, third = [(await s.completed(PHOTO))["image_id"] for _ in range(3)]
        assert inodes(s, first) == inodes(s, second) == inodes(s, third)
        deleted = await s.http.delete(f"/api/v1/images/{first}", headers=s.bearer())
        assert deleted.json()["files_removed"] == 4
        await assert_right(s, second)
        fourth = (await s.completed(PHOTO))["image_id"]
        assert inodes(s, fourth) == inodes(s, third)
        for image in (second, third, fourth):
            await s.http.delete(f"/api/v1/images/{image}", headers=s.bearer())
        assert s.stored() == []
        assert await s.sql("SELECT count(*) FROM job_sources") == [(0,)]
        await assert_right(s, (await s.completed(PHOTO))["image_id"])


async def test_what_an_interrupted_copy_left_is_never_written_into(start: Starter) -> None:
    """It is a second name of the first one's file. Killed before the rename, and between it and the commit."""
    async with start() as s:
        first = (await s.completed(PHOTO))["image_id"]
        before = file(s, first, "large").read_bytes()
        s.state.jobs.queue.hold()
        accepted = [(await s.upload(data)).json() for data in (PHOTO, PHOTO)]
        for one, name in zip(accepted, (".{}_large.webp.partial", "{}_large.webp"), strict=True):
            os.link(file(s, first, "large"), file(s, first, "large").with_name(name.format(one["image_id"])))
        await s.sql("UPDATE job_sources SET twin = NULL WHERE job_id = ?", accepted[0]["job_id"])  # it is rendered
    async with start() as s:
        for one in accepted:
            with within(20):
                while (await s.job(one["job_id"]))["status"] != "completed":
                    await anyio.sleep(0.02)
            await assert_right(s, one["image_id"])
        assert file(s, first, "large").read_bytes() == before
        assert not list(s.settings.storage.path.rglob(".*.partial"))


async def test_preview_that_is_done_is_kept(start: Starter) -> None:
    """A job that waits for its render takes over the other variants only."""
    async with start(workers={"count": 1}) as s:
        first = (await s.completed(PHOTO))["image_id"]
        s.state.jobs.queue.hold()
        one = (await s.upload(PHOTO)).json()
        (done,) = await s.sql("SELECT processing_metadata FROM processing_jobs WHERE image_id = ?", first)
        shutil.copy(file(s, first, "thumbnail"), file(s, one["image_id"], "thumbnail"))
        paths = f'{{"thumbnail": "{variant_key("thumbnail", one["image_id"])}"}}'
        await s.sql(
            "UPDATE processing_jobs SET queue = 'renders', preview = 'done', processed_paths = ?,"
            " processing_metadata = ? WHERE image_id = ?",
            paths,
            done[0],
            one["image_id"],
        )
    async with start() as s:
        with within(20):
            while (await s.job(one["job_id"]))["status"] != "completed":
                await anyio.sleep(0.02)
        assert [mine == theirs for mine, theirs in zip(inodes(s, one["image_id"]), inodes(s, first), strict=True)] == [
            False,
            True,
            True,
            True,
        ]


async def test_twins_are_taken_in_turn(start: Starter) -> None:
    """One user's many do not keep another's single one waiting."""
    async with start() as s:
        for user in ("alice", "bob"):
            await s.ended(await s.upload(PHOTO, user=user))
        s.state.jobs.queue.hold()
        for user in ("alice", "alice", "alice", "bob"):
            await s.upload(PHOTO, user=user)
        users = []
        for _ in range(4):
            claimed = await s.state.jobs.table.claim_with_twin()
            assert claimed and claimed.twin
            users.append(claimed.job.user_id)
        assert await s.state.jobs.table.claim_with_twin() is None
        assert users.index("bob") <= 1


async def test_job_with_a_twin_waits_for_no_lane(start: Starter) -> None:
    """Nor is it claimed by one; and one without a twin is, though others with one wait before it."""
    async with start() as s:
        await s.completed(PHOTO)
        s.state.jobs.queue.hold()
        twin, other = [(await s.upload(data)).json()["job_id"] for data in (PHOTO, make.tiny())]
        table = s.state.jobs.table
        assert await table.next_in("previews") == other
        claimed = await table.claim_with_twin()
        assert claimed and claimed.job.job_id == twin
        assert await table.decline_twin(claimed.job, "gone")
        assert await table.next_in("previews") == twin
        assert await s.sql("SELECT starts, attempt_count FROM processing_jobs WHERE job_id = ?", twin) == [(0, 0)]


async def test_client_that_waits_is_told_before_the_upload_is_removed(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_remove, remove = threading.Event(), Settlement._remove_staged

    def slow(settlement: Settlement) -> None:
        assert may_remove.wait(30)
        remove(settlement)

    async with start() as s:
        await s.completed(PHOTO)
        with within(10):
            while s.staged():
                await anyio.sleep(0.01)
        monkeypatch.setattr(Settlement, "_remove_staged", slow)
        job = (await s.upload(PHOTO)).json()["job_id"]
        with within(10):
            answer = await s.http.get(f"/api/v1/images/jobs/{job}", headers={**s.bearer(), "Prefer": "wait=30"})
        assert answer.json()["status"] == "completed" and len(s.staged()) == 1
        may_remove.set()
